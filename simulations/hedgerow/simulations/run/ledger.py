"""What a run has charged: one JSON object a line, appended before anything it pays for is released.

A charge is keyed by (trial, round): a run that was killed and goes on charges the same rounds again, which adds nothing,
since it draws the same noise and releases the same models. What differs is refused. Lines are flushed to the operating
system as they are written and to the disk with each checkpoint; a last line cut off by a crash is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from hedgerow.shared.errors import IntegrityError, StorageError
from hedgerow.shared.privacy.events import PrivacyEvent
from hedgerow.shared.unreadable import UNREADABLE


class Charge(msgspec.Struct, frozen=True):
    """One event and whom it costs; ``devices`` None means every device."""

    event: PrivacyEvent
    devices: tuple[int, ...] | None = None


class Entry(msgspec.Struct, frozen=True):
    """All charges of one round of one trial (``""`` outside a sweep)."""

    trial: str
    round: int
    charges: tuple[Charge, ...]


class Ledger:
    """The entries of a run. Without a ``path`` they live in memory alone."""

    def __init__(self, path: Path | None = None) -> None:
        """Read what is there. Raises IntegrityError for a damaged line, StorageError naming the path."""
        self._path = path
        self._file: IO[bytes] | None = None
        self._entries: dict[tuple[str, int], Entry] = {}
        if path is not None:
            try:
                self._open(path)
            except OSError as error:
                raise StorageError(f"{path}: cannot be used: {error.strerror}") from error
            except IntegrityError:
                self.close()
                raise

    def charge(self, entry: Entry) -> bool:
        """Write ``entry`` unless it is there; return whether it is new.

        Raises IntegrityError if the same round was charged differently, StorageError naming the path.
        """
        key = (entry.trial, entry.round)
        known = self._entries.get(key)
        if known is not None:
            if known != entry:
                raise IntegrityError(
                    f"{self._path}: round {entry.round} was charged differently before; this folder belongs to another "
                    "scenario"
                )
            return False
        self._write(msgspec.json.encode(entry) + b"\n")
        self._entries[key] = entry
        return True

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries in the order they were charged."""
        return iter(tuple(self._entries.values()))

    def flush(self) -> None:
        """Make everything durable. Raises StorageError naming the path."""
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        self._load(data[:whole].splitlines())

    def _load(self, lines: Iterable[bytes]) -> None:
        for number, line in enumerate(lines, start=1):
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except (ValueError, *UNREADABLE) as error:
                raise IntegrityError(f"{self._path}: line {number} is damaged: {error}") from error
            self._entries.setdefault((entry.trial, entry.round), entry)

    def _write(self, line: bytes) -> None:
        if self._file is None:
            return
        try:
            written = self._file.write(line)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
        if written != len(line):
            raise StorageError(f"{self._path}: cannot be written: the disk is full")
