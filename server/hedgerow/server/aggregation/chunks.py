"""One payload in several buffers, read as if it were one, without joining it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class Chunks:
    """A read-only view over buffers in order. ``nbytes`` is their sum."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers = [memoryview(buffer).cast("B") for buffer in buffers if buffer.nbytes]
        self._starts = [0, *accumulate(view.nbytes for view in self._buffers)]
        self.nbytes = self._starts[-1]

    def read(self, start: int, count: int) -> memoryview:
        """Return ``count`` bytes from ``start``: a view where they lie in one buffer, else a copy of just them.

        Raises ValueError beyond the end.
        """
        if start < 0 or count < 0 or start + count > self.nbytes:
            raise ValueError(f"bytes {start} to {start + count} of {self.nbytes}")
        if count == 0:
            return memoryview(b"")
        at = bisect_right(self._starts, start) - 1
        offset = start - self._starts[at]
        if offset + count <= self._buffers[at].nbytes:
            return self._buffers[at][offset : offset + count]
        return self._read_across(at, offset, count)

    def _read_across(self, at: int, offset: int, count: int) -> memoryview:
        out = bytearray(count)
        filled = 0
        while filled < count:
            part = self._buffers[at][offset : offset + count - filled]
            out[filled : filled + part.nbytes] = part
            filled += part.nbytes
            at, offset = at + 1, 0
        return memoryview(out)
