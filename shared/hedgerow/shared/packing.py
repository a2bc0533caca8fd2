"""Packing of model vectors for the wire: float32, float16, int8 with stochastic rounding.

A packed vector is raw little-endian values, but for int8, where blocks of ``BLOCK`` values each carry a float32
scale: first all scales, then all codes. Unpacking works block by block, so that a receiver never holds a second
copy of a large update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing

BLOCK = 4096
_STEP = 16 * BLOCK
Vector = npt.NDArray[np.float32]


def packed_bytes(n: int, packing: Packing) -> int:
    """Return the exact size in bytes of ``n`` packed values."""
    match packing:
        case "float32":
            return 4 * n
        case "float16":
            return 2 * n
        case "int8":
            return n + 4 * math.ceil(n / BLOCK)


def pack(vector: Vector, packing: Packing, rng: np.random.Generator | None = None) -> bytes:
    """Return ``vector`` (float32, ``(n,)``) packed.

    int8 rounds stochastically and is unbiased: ``rng`` draws the rounding (a fresh OS-seeded one if None).
    Raises ValueError for a non-finite value or, with float16, one beyond its range.
    """
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise ValueError(f"expected a float32 vector, got {vector.dtype} {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("a non-finite value cannot be packed")
    if packing == "float32":
        return vector.astype("<f4", copy=False).tobytes()
    if packing == "float16":
        with np.errstate(over="ignore"):
            half = vector.astype("<f2")
        if not np.isfinite(half).all():
            raise ValueError("a value is beyond float16's range; pack as float32")
        return half.tobytes()
    return _pack_int8(vector, rng or np.random.default_rng())


def _pack_int8(vector: Vector, rng: np.random.Generator) -> bytes:
    n = vector.size
    blocks = math.ceil(n / BLOCK)
    scales = np.empty(blocks, "<f4")
    codes = np.empty(n, np.int8)
    for b in range(blocks):
        block = vector[b * BLOCK : (b + 1) * BLOCK].astype(np.float64)
        scale = np.float32(np.abs(block).max() / 127.0)
        scales[b] = scale
        scaled = block / scale if scale > 0 else np.zeros_like(block)
        floor = np.floor(scaled)
        rounded = floor + (rng.random(block.size) < scaled - floor)
        codes[b * BLOCK : b * BLOCK + block.size] = np.clip(rounded, -127, 127).astype(np.int8)
    return scales.tobytes() + codes.tobytes()


def unpack_blocks(data: bytes | memoryview, n: int, packing: Packing) -> Iterator[tuple[int, Vector]]:
    """Yield ``(offset, values)`` over a packed vector of ``n`` values, in order.

    Raises UpdateRejectedError: ``wrong-size`` if the byte count is not exact, ``non-finite`` at the first such value.
    """
    expected = packed_bytes(n, packing)
    if len(data) != expected:
        raise UpdateRejectedError(
            "wrong-size", f"{len(data)} bytes where {packing} of {n} values takes {expected}"
        )
    scales = np.frombuffer(data, "<f4", math.ceil(n / BLOCK)) if packing == "int8" else None
    for offset in range(0, n, _STEP):
        count = min(_STEP, n - offset)
        if packing == "float32":
            values = np.frombuffer(data, "<f4", count, 4 * offset).astype(np.float32, copy=False)
        elif packing == "float16":
            values = np.frombuffer(data, "<f2", count, 2 * offset).astype(np.float32)
        else:
            values = _unpack_int8(data, scales, offset, count)
        if not np.isfinite(values).all():
            raise UpdateRejectedError(
                "non-finite", f"a value between {offset} and {offset + count} is not finite"
            )
        yield offset, values


def _unpack_int8(
    data: bytes | memoryview, scales: npt.NDArray[np.float32] | None, offset: int, count: int
) -> Vector:
    if scales is None:
        raise ValueError("int8 needs scales")
    codes = np.frombuffer(data, np.int8, count, 4 * scales.size + offset)
    first = offset // BLOCK
    repeated = np.repeat(scales[first : first + math.ceil(count / BLOCK)], BLOCK)[:count]
    with np.errstate(over="ignore", invalid="ignore"):
        values: Vector = codes.astype(np.float32) * repeated
    return values


def unpack(data: bytes | memoryview, n: int, packing: Packing) -> Vector:
    """Return a packed vector as float32 ``(n,)``. Raises UpdateRejectedError as ``unpack_blocks``."""
    out = np.empty(n, np.float32)
    for offset, values in unpack_blocks(data, n, packing):
        out[offset : offset + values.size] = values
    return out
