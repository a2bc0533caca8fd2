"""Arrays that several processes see at once, without a copy and without pickling.

An arena is an anonymous file in memory (``memfd_create``, Linux): forked processes inherit its descriptor and map it when they
first need it, or again after it grew. Pages cost memory once they are written, and once for all processes. Where workers are not
processes an arena is an ordinary array.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt


class Arena:
    """One growing array of a fixed dtype. All processes ask for the same shape, the parent first."""

    def __init__(self, name: str, dtype: npt.DTypeLike, *, shared: bool) -> None:
        """Reserve a name; nothing is allocated before somebody asks."""
        self._dtype = np.dtype(dtype)
        self._file = os.memfd_create(f"hedgerow-{name}") if shared else -1
        self._bytes = 0
        self._memory: mmap.mmap | bytearray = bytearray()

    def array(self, *shape: int) -> npt.NDArray[Any]:
        """Return the first values as an array of ``shape``; it stays valid, but an arena that grows moves on.

        What it holds is what was last written there; new memory is zero. Raises OSError if there is no more memory.
        """
        count = int(np.prod(shape, dtype=np.int64))
        needed = count * self._dtype.itemsize
        if needed > self._bytes:
            self._grow(needed)
        return np.frombuffer(self._memory, self._dtype, count).reshape(shape)

    def begins_with(self, array: npt.NDArray[Any]) -> bool:
        """Return whether ``array`` is the beginning of this memory, and not merely equal to it."""
        if not 0 < array.nbytes <= self._bytes or not array.flags.c_contiguous:
            return False
        return array.ctypes.data == np.frombuffer(self._memory, np.uint8, 1).ctypes.data

    def close(self) -> None:
        """Give the memory back once no array of it is left. Idempotent."""
        self._memory, self._bytes = bytearray(), 0
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _grow(self, needed: int) -> None:
        size = -(-needed // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._file < 0:
            self._memory, self._bytes = bytearray(size), size
            return
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        self._memory, self._bytes = mmap.mmap(self._file, size), size


class Stripes:
    """Locks for parts of a shared array, one a number, among processes; a process that dies leaves none locked.

    They are POSIX record locks on an anonymous file. That file is never mapped and never closed by a worker: closing any
    descriptor of it would let go of all that the process holds.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("hedgerow-locks")

    @contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Hold lock ``number`` (0 ≤ number < 2⁶²); waits for it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def above(self, first: int) -> Callable[[int], AbstractContextManager[None]]:
        """Return ``held`` for numbers counted from ``first``."""
        return lambda number: self.held(first + number)

    def close(self) -> None:
        """Give the file back. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
