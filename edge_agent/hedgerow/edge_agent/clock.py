"""The last time that is known to have passed, kept on disk: a board without a battery wakes in 1970."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from hedgerow.shared.errors import StorageError
from hedgerow.shared.files import write_atomically
from hedgerow.shared.unreadable import UNREADABLE

TOLERANCE_US: Final = 5 * 60 * 1_000_000
_WRITE_EVERY_US: Final = 10 * 60 * 1_000_000
_LATEST_BELIEVED_US: Final = 7_258_118_400 * 1_000_000  # the year 2200: no honest server is beyond


class _Kept(msgspec.Struct, frozen=True):
    last_known_us: int


class LastKnownTime:
    """A lower bound on the present, which only moves forward. Safe from any thread.

    It is moved by what the server says over a verified connection, never by this device's own clock: a clock that
    once stood in the far future would shut the device out for ever.
    """

    def __init__(self, path: Path, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._path = path
        self._now_us = now_us
        self._lock = threading.Lock()
        self._known_us = read_last_known_us(path)
        self._written_us = self._known_us

    @property
    def known_us(self) -> int:
        """The last known time in microseconds since 1970; 0 if none is known."""
        return self._known_us

    def clock_ok(self) -> bool:
        """Tell whether this device's clock stands at or after the last known time, within five minutes."""
        return self._now_us() >= self._known_us - TOLERANCE_US

    def learn(self, time_us: int) -> None:
        """Take a time that the server told; written down when it moved by ten minutes. A full disk is tolerated."""
        with self._lock:
            if not self._known_us < time_us < _LATEST_BELIEVED_US:
                return
            self._known_us = time_us
            if time_us - self._written_us < _WRITE_EVERY_US:
                return
            try:
                write_atomically(self._path, msgspec.json.encode(_Kept(time_us)))
            except StorageError:
                return  # known in memory; the next ten minutes try again
            self._written_us = time_us


def read_last_known_us(path: Path) -> int:
    """Return the time kept at ``path``; 0 where there is none or it cannot be read."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, *UNREADABLE):
        return 0
    return kept.last_known_us if 0 <= kept.last_known_us < _LATEST_BELIEVED_US else 0
