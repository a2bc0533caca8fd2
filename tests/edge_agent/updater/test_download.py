"""The download's decisions, without a network, and its bounds against a server on a socket."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.updater import download as download_module
from hedgerow.edge_agent.updater.download import Downloader, Limits, Wanted, answer_to, backoff_s
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.shared.errors import TransportError

DATA = bytes(range(256)) * 40


class Script:
    """Plays a server by a list of answers: (status, headers, chunks); a chunk that is an error is raised."""

    def __init__(self, *answers: tuple[int, dict[str, str], list[Any]]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    @contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
        self.asked.append((headers or {}).get("Range", ""))
        if not self.answers:
            raise TransportError("nobody answers")
        self.status, self.headers, self._chunks = self.answers.pop(0)
        yield self

    def chunks(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def wanted(data: bytes = DATA) -> Wanted:
    return Wanted("https://h/f", len(data), hashlib.sha256(data).hexdigest())


def downloader(script: Script, **options: Any) -> Downloader:
    options = {"sleep": lambda _s: None, "jitter": lambda: 1.0, **options}
    return Downloader(script, options.pop("limits", Limits()), **options)  # type: ignore[arg-type]


def rest(have: int) -> tuple[int, dict[str, str], list[Any]]:
    return 206, {"content-range": f"bytes {have}-{len(DATA) - 1}/{len(DATA)}"}, [DATA[have:]]


def test_a_broken_download_goes_on_exactly_where_it_broke(tmp_path: Path) -> None:
    script = Script((200, {}, [DATA[:1000], TransportError("cut")]), rest(1000))
    fetched = downloader(script).fetch(wanted(), tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == DATA
    assert script.asked == ["", "bytes=1000-"]
    assert not (tmp_path / "f.part").exists()
    assert (fetched.bytes_resumed, fetched.bytes_down) == (0, len(DATA) - 1000)


def test_an_earlier_part_is_used(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(DATA[:5000])
    fetched = downloader(Script(rest(5000))).fetch(wanted(), tmp_path / "f")

    assert (fetched.bytes_resumed, fetched.bytes_down) == (5000, len(DATA) - 5000)


def test_a_complete_part_needs_no_request(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(DATA)
    script = Script()
    downloader(script).fetch(wanted(), tmp_path / "f")

    assert script.asked == []


def test_a_part_longer_than_the_signed_length_starts_over(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(DATA + b"x")
    script = Script((200, {}, [DATA]))
    downloader(script).fetch(wanted(), tmp_path / "f")

    assert script.asked == [""]


@pytest.mark.parametrize("content_range", ["bytes 0-9/10", "bytes 999-10239/10240", "garbage", None])
def test_a_range_that_is_not_the_one_asked_for_is_thrown_away(
    tmp_path: Path, content_range: str | None
) -> None:
    (tmp_path / "f.part").write_bytes(DATA[:1000])
    headers = {} if content_range is None else {"content-range": content_range}
    script = Script((206, headers, [b"y" * 9240]), (200, {}, [DATA]))
    downloader(script).fetch(wanted(), tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == DATA
    assert script.asked == ["bytes=1000-", ""]


def test_not_one_byte_more_than_the_signed_length_is_kept(tmp_path: Path) -> None:
    script = Script((200, {}, [DATA, b"!"]))

    with pytest.raises(UpdateError, match="more than the signed") as caught:
        downloader(script).fetch(wanted(), tmp_path / "f")
    assert caught.value.reason == "mismatch"
    assert (tmp_path / "f.part").stat().st_size == 0


def test_other_bytes_are_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="SHA-256"):
        downloader(Script((200, {}, [DATA[::-1]]))).fetch(wanted(), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_tries_are_bounded_and_pauses_grow(tmp_path: Path) -> None:
    pauses: list[float] = []
    limits = Limits(tries=5, backoff_s=1, backoff_max_s=5)
    script = Script()

    with pytest.raises(UpdateError, match="gave up after 5 tries: nobody answers") as caught:
        downloader(script, limits=limits, sleep=pauses.append).fetch(wanted(), tmp_path / "f")
    assert caught.value.reason == "unreachable"
    assert pauses == [1, 2, 4, 5]
    assert len(script.asked) == 5


def test_what_was_received_before_giving_up_is_kept_for_the_next_time(tmp_path: Path) -> None:
    script = Script((200, {}, [DATA[:3000], TransportError("cut")]))

    with pytest.raises(UpdateError):
        downloader(script).fetch(wanted(), tmp_path / "f")
    assert (tmp_path / "f.part").read_bytes() == DATA[:3000]


def test_a_trickle_ends_at_the_deadline(tmp_path: Path) -> None:
    times = iter(range(0, 10_000, 10))
    script = Script((200, {}, [b"x"] * 10_000))

    with pytest.raises(UpdateError) as caught:
        downloader(script, limits=Limits(deadline_s=100), clock=lambda: next(times)).fetch(
            wanted(), tmp_path / "f"
        )
    assert caught.value.reason == "too-slow"


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "storage")]
)
def test_a_disk_that_refuses_is_named_and_the_part_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def refuse(_file: object, _chunk: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(download_module, "_write_all", refuse)
    with pytest.raises(UpdateError, match=r"f\.part") as caught:
        downloader(Script((200, {}, [DATA]))).fetch(wanted(), tmp_path / "f")
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_takes_less_than_it_is_given_is_finished() -> None:
    class Slow:
        def __init__(self) -> None:
            self.got = b""

        def write(self, data: memoryview) -> int:
            self.got += bytes(data[:7])
            return min(7, len(data))

    slow = Slow()
    download_module._write_all(slow, DATA)  # type: ignore[arg-type]

    assert slow.got == DATA


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 301])
def test_a_plain_no_is_not_asked_again(tmp_path: Path, status: int) -> None:
    script = Script((status, {}, []))

    with pytest.raises(UpdateError) as caught:
        downloader(script).fetch(wanted(), tmp_path / "f")
    assert caught.value.reason == "not-listed"
    assert len(script.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_passing_trouble_is(tmp_path: Path, status: int) -> None:
    downloader(Script((status, {}, []), (200, {}, [DATA]))).fetch(wanted(), tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == DATA


@settings(deadline=None)
@given(st.integers(100, 599), st.none() | st.text(max_size=40), st.integers(0, 100), st.integers(1, 100))
def test_bytes_are_appended_only_where_the_server_says_it_continues(
    status: int, content_range: str | None, have: int, length: int
) -> None:
    if answer_to(status, content_range, have, length) == "append":
        assert (status == 200 and have == 0) or content_range == f"bytes {have}-{length - 1}/{length}"


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_pause_is_never_longer_than_the_cap(attempt: int, jitter: float) -> None:
    limits = Limits(backoff_s=0.2, backoff_max_s=10)

    assert 0.1 <= backoff_s(attempt, limits, jitter) <= 10


@settings(deadline=None)
@given(st.lists(st.integers(0, len(DATA)), max_size=Limits().tries - 1))
def test_wherever_connections_break_the_file_comes_out_whole(breaks: list[int]) -> None:
    import tempfile

    answers: list[tuple[int, dict[str, str], list[Any]]] = []
    at = 0
    for end in sorted(set(breaks)):
        if at < end < len(DATA):
            status, headers, _ = rest(at) if at else (200, {}, [])
            answers.append((status, headers, [DATA[at:end], TransportError("cut")]))
            at = end
    answers.append(rest(at) if at else (200, {}, [DATA]))
    with tempfile.TemporaryDirectory() as folder:
        downloader(Script(*answers)).fetch(wanted(), Path(folder) / "f")

        assert (Path(folder) / "f").read_bytes() == DATA
