"""The rounds of a run as they come: one JSON object a line, for whoever wants to look before it ends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.run.records import RoundRecord

FILE_NAME = "rounds.jsonl"


class RoundsFile:
    """``rounds.jsonl`` in a run's folder. Starting it writes ``known`` rounds anew, so that a resumed run has each once."""

    def __init__(self, folder: Path, known: Iterable[RoundRecord]) -> None:
        """Raises StorageError naming the path."""
        self._path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
        for record in known:
            self.add(record)

    def add(self, record: RoundRecord) -> None:
        """Append one round. Raises StorageError naming the path."""
        line = msgspec.json.encode(record) + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
        if written != len(line):
            raise StorageError(f"{self._path}: cannot be written: the disk is full")

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()
