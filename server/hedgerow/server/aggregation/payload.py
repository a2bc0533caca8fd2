"""A packed update as it arrived: its values block by block, and the check it must pass before it is counted.

The same values as ``hedgerow.shared.packing.unpack_blocks`` gives, read over several buffers and into scratch space, so
that an update of any size costs one block of memory beside its own bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.server.aggregation.chunks import Chunks
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import BLOCK, Vector, packed_bytes

STEP: Final = 16 * BLOCK
MAX_NORM_L2: Final = 1e18
"""No update may be longer, asked for or not: sums of as many as may come then stay finite in float32."""
_HALF_MAX: Final = 65504.0
_HALF_EXPONENT: Final = np.uint16(0x7C00)


class Payload:
    """A packed vector of ``n`` values in one or more buffers.

    Raises UpdateRejectedError (``wrong-size``) if the byte count is not exact.
    """

    def __init__(self, buffers: Sequence[memoryview], n: int, packing: Packing) -> None:
        self._chunks = Chunks(buffers)
        expected = packed_bytes(n, packing)
        if self._chunks.nbytes != expected:
            raise UpdateRejectedError(
                "wrong-size", f"{self._chunks.nbytes} bytes where {packing} of {n} values takes {expected}"
            )
        self.n = n
        self.packing = packing
        self._scales = _scales(self._chunks, n) if packing == "int8" else None

    def blocks(self) -> Iterator[tuple[int, Vector]]:
        """Yield ``(offset, values)`` in order; float32, at most ``STEP`` values, valid until the next one."""
        scratch = np.empty(0 if self.packing == "float32" else min(STEP, self.n), np.float32)
        for offset in range(0, self.n, STEP):
            count = min(STEP, self.n - offset)
            yield offset, self._values(offset, count, scratch[:count])

    def check(self, max_norm_l2: float | None = None) -> None:
        """Check the whole update.

        Raises UpdateRejectedError: ``non-finite`` at a NaN or infinity, ``over-norm`` above ``max_norm_l2`` or, in
        any case, ``MAX_NORM_L2``.
        """
        limit = MAX_NORM_L2 if max_norm_l2 is None else min(max_norm_l2, MAX_NORM_L2)
        if self._norm_bound() <= limit:
            return
        norm = self.norm()
        if norm > limit:
            raise UpdateRejectedError("over-norm", f"L2 norm {norm:.6g}, at most {limit:.6g}")

    def norm(self) -> float:
        """Return the L2 norm of the values. Raises UpdateRejectedError (``non-finite``)."""
        squares = 0.0
        for offset, values in self.blocks():
            # The product of a vector with itself is finite only if each value is, and it is cheaper than isfinite;
            # finite values too large for float32 squares fall through to the exact test.
            with np.errstate(over="ignore", invalid="ignore"):
                square = float(np.dot(values, values))
            if not math.isfinite(square):
                square = _exact_square(offset, values)
            squares += square
        return math.sqrt(squares)

    def _norm_bound(self) -> float:
        """Return what the norm cannot exceed, from what is cheap to look at; infinite where that is nothing.

        Raises UpdateRejectedError (``non-finite``) where this finds such a value; a finite bound says there is none.
        """
        if self._scales is not None:
            if not np.isfinite(self._scales).all():
                raise UpdateRejectedError("non-finite", "a scale is not finite")
            wide = self._scales.astype(np.float64)
            return 128.0 * math.sqrt(BLOCK * float(np.dot(wide, wide)))
        if self.packing == "float16":
            self._check_half_bits()
            return _HALF_MAX * math.sqrt(self.n)
        return math.inf

    def _check_half_bits(self) -> None:
        """Look for float16's exponent of all ones: NaN or infinity."""
        for offset in range(0, self.n, STEP):
            count = min(STEP, self.n - offset)
            bits = np.frombuffer(self._chunks.read(2 * offset, 2 * count), "<u2")
            if ((bits & _HALF_EXPONENT) == _HALF_EXPONENT).any():
                raise UpdateRejectedError(
                    "non-finite", f"a value between {offset} and {offset + count} is not finite"
                )

    def _values(self, offset: int, count: int, scratch: Vector) -> Vector:
        if self.packing == "float32":
            return np.frombuffer(self._chunks.read(4 * offset, 4 * count), "<f4")
        if self.packing == "float16":
            np.copyto(scratch, np.frombuffer(self._chunks.read(2 * offset, 2 * count), "<f2"))
            return scratch
        return self._int8_values(offset, count, scratch)

    def _int8_values(self, offset: int, count: int, scratch: Vector) -> Vector:
        if self._scales is None:
            raise ValueError("int8 needs scales")
        codes = np.frombuffer(self._chunks.read(4 * self._scales.size + offset, count), np.int8)
        np.copyto(scratch, codes)
        first = offset // BLOCK
        with np.errstate(over="ignore", invalid="ignore"):
            for at in range(0, count, BLOCK):
                scratch[at : at + BLOCK] *= self._scales[first + at // BLOCK]
        return scratch


def _scales(chunks: Chunks, n: int) -> npt.NDArray[np.float32]:
    return np.frombuffer(chunks.read(0, 4 * math.ceil(n / BLOCK)), "<f4")


def _exact_square(offset: int, values: Vector) -> float:
    if not np.isfinite(values).all():
        raise UpdateRejectedError(
            "non-finite", f"a value between {offset} and {offset + values.size} is not finite"
        )
    wide = values.astype(np.float64)
    return float(np.dot(wide, wide))
