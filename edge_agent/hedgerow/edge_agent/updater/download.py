"""A download that resumes: into ``<file>.part``, never more than the signed length, kept only if the hash is right."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.https import Https
from hedgerow.shared.errors import TransportError

_CHUNK_BYTES = 1 << 20


class Wanted(msgspec.Struct, frozen=True):
    """One file as the signed metadata describes it."""

    url: str
    length: int
    sha256: str


class Limits(msgspec.Struct, frozen=True):
    """How stubborn a download is. ``deadline_s`` bounds one file in all, so that a trickle ends too."""

    tries: int = 5
    backoff_s: float = 0.2
    backoff_max_s: float = 10.0
    deadline_s: float = 900.0


class Fetched(msgspec.Struct, frozen=True):
    """What a download cost."""

    bytes_down: int
    bytes_resumed: int


def backoff_s(attempt: int, limits: Limits, jitter: float) -> float:
    """Return the pause after failed ``attempt`` (from 0): doubling, capped, between half and all of it by ``jitter``."""
    return min(limits.backoff_s * 2.0**attempt, limits.backoff_max_s) * (0.5 + 0.5 * jitter)


def answer_to(
    status: int, content_range: str | None, have: int, length: int
) -> Literal["append", "restart", "retry", "gone"]:
    """Decide what to do with an answer to a request from byte ``have`` on.

    ``append`` only if the server says that it continues exactly there.
    """
    if status == 206:
        return "append" if content_range == f"bytes {have}-{length - 1}/{length}" else "restart"
    if status == 200:
        return "append" if have == 0 else "restart"
    if status == 416:
        return "restart"
    return "retry" if status in (408, 425, 429) or status >= 500 else "gone"


class Downloader:
    """Downloads files of known length and hash. ``sleep``, ``clock`` and ``jitter`` are injected for tests."""

    def __init__(
        self,
        https: Https,
        limits: Limits | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._https = https
        self._limits = limits or Limits()
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter

    def fetch(self, wanted: Wanted, path: Path) -> Fetched:
        """Put the file at ``path``; go on from ``path.part`` if it is there.

        Raises UpdateError: ``unreachable`` after the last try, ``too-slow`` past the deadline, ``mismatch`` if the
        server sends more than the signed length or other bytes (the partial file is then thrown away),
        ``not-listed`` if the server lacks it, ``disk-full`` or ``storage``.
        """
        part = path.with_name(path.name + ".part")
        started = self._clock()
        try:
            with _open_part(part) as file:
                resumed = _usable(file, wanted.length)
                down = self._fill(file, wanted, started)
                _check(file, wanted, part)
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise _storage_error(part, error) from error
        return Fetched(down, resumed)

    def _fill(self, file: BinaryIO, wanted: Wanted, started: float) -> int:
        down, failure = 0, "nothing was tried"
        for attempt in range(self._limits.tries):
            if file.seek(0, os.SEEK_END) == wanted.length:
                return down
            if attempt:
                self._sleep(backoff_s(attempt - 1, self._limits, self._jitter()))
            try:
                down += self._attempt(file, wanted, started)
            except TransportError as error:
                failure = str(error)
        if file.seek(0, os.SEEK_END) == wanted.length:
            return down
        raise UpdateError("unreachable", f"{wanted.url}: gave up after {self._limits.tries} tries: {failure}")

    def _attempt(self, file: BinaryIO, wanted: Wanted, started: float) -> int:
        have = file.seek(0, os.SEEK_END)
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._https.get(wanted.url, headers) as answer:
            action = answer_to(answer.status, answer.headers.get("content-range"), have, wanted.length)
            if action == "gone":
                raise UpdateError("not-listed", f"{wanted.url}: the server answers {answer.status}")
            if action == "retry":
                raise TransportError(f"the server answers {answer.status}")
            if action == "restart":
                file.truncate(0)
                file.seek(0)
                if answer.status != 200:
                    raise TransportError(f"the server answers {answer.status} to a resumed download")
            return self._pour(file, answer.chunks(), wanted, started)

    def _pour(self, file: BinaryIO, chunks: Any, wanted: Wanted, started: float) -> int:
        got = 0
        for chunk in chunks:
            if file.tell() + len(chunk) > wanted.length:
                file.truncate(0)
                raise UpdateError("mismatch", f"{wanted.url}: more than the signed {wanted.length} bytes")
            _write_all(file, chunk)
            got += len(chunk)
            if self._clock() - started > self._limits.deadline_s:
                raise UpdateError("too-slow", f"{wanted.url}: not done after {self._limits.deadline_s:g} s")
        if file.tell() < wanted.length:
            raise TransportError(f"the server sent {file.tell()} of {wanted.length} bytes")
        return got


def _open_part(part: Path) -> BinaryIO:
    # Unbuffered: what a crash finds on disk is what was received, and a full disk is seen at the write.
    return os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    # A raw write may take less than it is given, on a disk that is about to be full for instance.
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]


def _usable(file: BinaryIO, length: int) -> int:
    have = file.seek(0, os.SEEK_END)
    if have > length:
        file.truncate(0)
        return 0
    return have


def _check(file: BinaryIO, wanted: Wanted, part: Path) -> None:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_CHUNK_BYTES):
        digest.update(block)
    if digest.hexdigest() != wanted.sha256:
        part.unlink(missing_ok=True)
        raise UpdateError("mismatch", f"{wanted.url}: SHA-256 is not the signed one; thrown away")


def _storage_error(part: Path, error: OSError) -> UpdateError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    part.unlink(missing_ok=True)
    return UpdateError("disk-full" if full else "storage", f"{part}: {error.strerror or error}")
