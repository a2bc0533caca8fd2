"""A download from a server that may answer anything, over and over: the file is right or it is not there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.updater.download import Downloader, Fetched, Limits, Wanted
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.result import EXIT_OF, UpdateResult, decode_result, encode_result
from hedgerow.shared.errors import ContentError, TransportError

DATA = bytes(range(200))
WANTED = Wanted("https://h/f", len(DATA), hashlib.sha256(DATA).hexdigest())
BODIES = st.lists(
    st.one_of(
        st.binary(max_size=120),
        st.tuples(st.integers(0, 200), st.integers(0, 200)).map(lambda cut: DATA[min(cut) : max(cut)]),
        st.just(TransportError("cut")),
    ),
    max_size=4,
)
RANGES = st.sampled_from(
    ["", "bytes 0-199/200", "bytes 100-199/200", "bytes */200", "bytes 100-198/199", "garbage"]
)
ANSWERS = st.tuples(st.sampled_from([200, 206, 404, 410, 416, 429, 500, 503, 301]), RANGES, BODIES)
FAST = Limits(tries=4, backoff_s=0.0, deadline_s=60.0)
CALM = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Liar:
    """Answers as it was told, then honestly from where it is asked."""

    def __init__(self, answers: list[tuple[int, str, list[Any]]], *, honest: bool) -> None:
        self._answers = answers
        self._honest = honest

    @contextmanager
    def get(self, _url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
        if self._answers:
            self.status, content_range, self._body = self._answers.pop(0)
            self.headers = {"content-range": content_range}
        elif self._honest:
            have = int((headers or {}).get("Range", "bytes=0-")[6:-1])
            self.status, self._body = (206 if have else 200), [DATA[have:]]
            self.headers = {"content-range": f"bytes {have}-199/200"}
        else:
            raise TransportError("nobody answers")
        yield self

    def chunks(self) -> Iterator[bytes]:
        for piece in self._body:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def fetch(path: Path, liar: Liar) -> Fetched | UpdateError:
    downloader = Downloader(liar, FAST, sleep=lambda _s: None, jitter=lambda: 0.0)  # type: ignore[arg-type]
    try:
        return downloader.fetch(WANTED, path)
    except UpdateError as error:
        return error


@CALM
@given(answers=st.lists(ANSWERS, max_size=5), part=st.none() | st.binary(max_size=260))
def test_what_stands_under_the_name_is_what_was_signed_or_nothing(
    tmp_path: Path, answers: list[tuple[int, str, list[Any]]], part: bytes | None
) -> None:
    path, beside = tmp_path / "f", tmp_path / "f.part"
    path.unlink(missing_ok=True)
    beside.unlink(missing_ok=True)
    if part is not None:
        beside.write_bytes(part)

    found = fetch(path, Liar(answers, honest=False))

    if isinstance(found, Fetched):
        assert path.read_bytes() == DATA
        assert not beside.exists()
    else:
        assert not path.exists()
        assert found.reason in ("unreachable", "mismatch", "not-listed")
        # Never more than was signed, and nothing at all of what was found to be wrong as a whole.
        assert not beside.exists() or beside.stat().st_size <= WANTED.length


@CALM
@given(answers=st.lists(ANSWERS, max_size=4))
def test_a_server_that_comes_to_its_senses_is_believed_in_a_few_tries(
    tmp_path: Path, answers: list[tuple[int, str, list[Any]]]
) -> None:
    """Whatever was left of the lies, further tries end with the file: nothing wrong is kept for good."""
    path = tmp_path / "f"
    path.unlink(missing_ok=True)
    fetch(path, Liar(answers, honest=False))

    found = [fetch(path, Liar([], honest=True)) for _ in range(2)]

    assert any(isinstance(one, Fetched) for one in found)
    assert path.read_bytes() == DATA


@given(st.sampled_from(sorted(EXIT_OF)), st.text(max_size=200), st.integers(0, 2**40))
def test_a_result_means_the_same_after_its_line(reason: Any, detail: str, n_bytes: int) -> None:
    result = UpdateResult(reason, "pump", 2, "a" * 64, detail, bytes_down=n_bytes)

    line = encode_result(result)

    assert line.count(b"\n") == 1
    assert decode_result(b"a library's chatter\n" + line) == result
    assert not (result.ok and result.retry)


@given(st.binary(max_size=200))
def test_no_output_of_a_child_is_more_than_no_result(output: bytes) -> None:
    try:
        assert isinstance(decode_result(output), UpdateResult)
    except ContentError as error:
        assert "printed no result" in str(error)
