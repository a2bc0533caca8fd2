"""Whose fault a refusal is, and how long metadata may take to arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tuf.api import exceptions as tuf_errors

from hedgerow.edge_agent.updater import trust
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.trust import MtlsFetcher, TrustedBundles, refusal
from hedgerow.shared.errors import TransportError


class Server:
    """Answers every request with a status and chunks; the first ``failures`` requests break."""

    def __init__(self, status: int, chunks: Iterator[bytes], failures: int = 0) -> None:
        self.status, self._chunks, self.failures, self.asked = status, chunks, failures, 0

    @contextmanager
    def get(self, url: str) -> Iterator[Any]:
        self.asked += 1
        if self.asked <= self.failures:
            raise TransportError("cut")
        yield self

    def chunks(self) -> Iterator[bytes]:
        return self._chunks


def fetch(server: Server) -> bytes:
    return b"".join(MtlsFetcher(server).fetch("https://h/x"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (tuf_errors.ExpiredMetadataError("x"), "expired"),
        (tuf_errors.UnsignedMetadataError("x"), "untrusted"),
        (tuf_errors.BadVersionNumberError("x"), "untrusted"),
        (tuf_errors.LengthOrHashMismatchError("x"), "untrusted"),
        (tuf_errors.RepositoryError("x"), "untrusted"),
        (tuf_errors.DownloadLengthMismatchError("x"), "untrusted"),
        (tuf_errors.DownloadHTTPError("x", 404), "untrusted"),
        (tuf_errors.DownloadHTTPError("x", 403), "unreachable"),
        (tuf_errors.DownloadHTTPError("x", 503), "unreachable"),
        (tuf_errors.SlowRetrievalError("x"), "unreachable"),
        (tuf_errors.DownloadError("x"), "unreachable"),
    ],
)
def test_content_is_at_fault_or_the_way_is(
    error: tuf_errors.RepositoryError | tuf_errors.DownloadError, reason: str
) -> None:
    assert refusal(error) == reason


def test_a_connection_that_breaks_is_tried_anew_a_bounded_number_of_times() -> None:
    assert fetch(Server(200, iter([b"a", b"b"]), failures=2)) == b"ab"

    broken = Server(200, iter([]), failures=99)
    with pytest.raises(tuf_errors.DownloadError, match="cut"):
        fetch(broken)
    assert broken.asked == 3


def test_a_body_without_end_is_read_to_a_bound_only() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    assert len(fetch(Server(200, endless()))) <= trust.MAX_METADATA_BYTES + 65536


def test_a_trickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 100_000, 7))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(times)))

    def trickle() -> Iterator[bytes]:
        while True:
            yield b"x"

    with pytest.raises(tuf_errors.DownloadError, match="metadata not read after 60 s"):
        fetch(Server(200, trickle()))


def test_an_answer_that_is_no_file_is_told_by_its_status() -> None:
    with pytest.raises(tuf_errors.DownloadHTTPError) as caught:
        fetch(Server(404, iter([])))
    assert caught.value.status_code == 404


def test_nothing_is_listed_before_a_refresh(tmp_path: Path) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(b"{}")
    trusted = TrustedBundles(
        Server(404, iter([])),  # type: ignore[arg-type]
        "https://h",
        root=root,
        metadata=tmp_path / "metadata",
    )

    with pytest.raises(UpdateError, match="before a refresh"):
        trusted.file("pump", 1, "manifest.json")


def test_files_that_a_killed_client_left_are_removed(tmp_path: Path) -> None:
    root, metadata = tmp_path / "root.json", tmp_path / "metadata"
    root.write_bytes(b"{}")
    metadata.mkdir()
    (metadata / "tmpabc123").write_bytes(b"half")
    (metadata / "timestamp.json").write_bytes(b"kept")
    TrustedBundles(Server(404, iter([])), "https://h", root=root, metadata=metadata)  # type: ignore[arg-type]

    assert [path.name for path in metadata.iterdir()] == ["timestamp.json"]
