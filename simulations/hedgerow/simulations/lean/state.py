"""What devices keep from round to round (SCAFFOLD's control, personal layers), so that a round can be done again.

Each device has two slots, stamped with the round that wrote them. A round reads the newest slot from before it and writes
the other one: doing it again, after a worker died or from a checkpoint of the round before, reads what it read the first time, also
where the first try was cut off while writing. The file is sparse: only devices that took part take space.

Slots are read and written by ``pread`` and ``pwrite``, not mapped: a full disk is then an error and not a signal.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import StorageError
from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.errors import EngineError

FILE_NAME: Final = "device-state.bin"
_NEVER: Final = 0
_WRITING: Final = -1
_ALIGN: Final = 4096


class DeviceState:
    """``size`` float32 values for each of ``devices``. Forked processes share it; a device belongs to one at a time."""

    def __init__(self, devices: int, size: int, folder: Path | None) -> None:
        """Open the state in ``folder``, or new and in memory.

        A run from the beginning wants an empty folder. Raises StorageError for a file that is of another run.
        """
        self._size = size
        self._start = _aligned(16 * devices)
        self._slot = _aligned(4 * size)
        self._where = "memory" if folder is None else str(folder / FILE_NAME)
        length = self._start + 2 * devices * self._slot
        try:
            self._file = _opened(folder)
            found = os.fstat(self._file).st_size
            if found == 0:
                os.ftruncate(self._file, length)
        except OSError as error:
            raise StorageError(f"{self._where}: device state cannot be kept there: {error}") from error
        if found not in (0, length):
            self.close()
            raise StorageError(
                f"{self._where}: {found} bytes where {devices} devices of {size} values take {length}: it is of another run; "
                "give an empty folder"
            )

    def before(self, device: int, round: int) -> Vector | None:
        """Return what ``device`` kept before ``round``, float32 ``(size,)``, or None if it never took part.

        Raises EngineError if that was overwritten: two later rounds were done already.
        """
        stamps = self._stamps(device)
        slot = _newest_before(stamps, round)
        if slot is not None:
            return np.frombuffer(self._read(4 * self._size, self._at(device, slot)), np.float32)
        if _NEVER not in stamps:
            raise EngineError(
                f"{self._where}: what device {device} kept before round {round} is gone (rounds {stamps[0]} and {stamps[1]} are "
                "there): resume from the newest checkpoint, or start again with an empty folder"
            )
        return None

    def keep(self, device: int, round: int, values: Vector) -> None:
        """Keep ``values``, float32 ``(size,)``, as of ``round``. Raises StorageError, for a full disk too."""
        stamps = self._stamps(device)
        read = _newest_before(stamps, round)
        # In a device's first round, or that one again, only slot 0 was ever touched.
        slot = 0 if read is None else 1 - read
        self._stamp(device, slot, _WRITING)
        self._write(np.ascontiguousarray(values, np.float32).data.cast("B"), self._at(device, slot))
        self._stamp(device, slot, round)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _at(self, device: int, slot: int) -> int:
        return self._start + (2 * device + slot) * self._slot

    def _stamps(self, device: int) -> tuple[int, int]:
        found: npt.NDArray[np.int64] = np.frombuffer(self._read(16, 16 * device), np.int64)
        return int(found[0]), int(found[1])

    def _stamp(self, device: int, slot: int, value: int) -> None:
        self._write(np.int64(value).tobytes(), 16 * device + 8 * slot)

    def _read(self, count: int, at: int) -> bytearray:
        out = bytearray(count)
        view, done = memoryview(out), 0
        while done < count:
            got = os.preadv(self._file, [view[done:]], at + done)
            if got == 0:
                raise StorageError(f"{self._where} ends at {at + done}: it was cut short")
            done += got
        return out

    def _write(self, data: bytes | memoryview, at: int) -> None:
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += os.pwrite(self._file, view[done:], at + done)
        except OSError as error:
            raise StorageError(f"{self._where}: device state could not be kept: {error}") from error


def _newest_before(stamps: tuple[int, int], round: int) -> int | None:
    older = [slot for slot in (0, 1) if _NEVER < stamps[slot] < round]
    return max(older, key=lambda slot: stamps[slot]) if older else None


def _opened(folder: Path | None) -> int:
    if folder is None and hasattr(os, "memfd_create"):
        return os.memfd_create("hedgerow-state")
    if folder is None:
        file, path = tempfile.mkstemp(prefix="hedgerow-state-")
        Path(path).unlink()
        return file
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
