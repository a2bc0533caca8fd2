"""Sums that do not depend on who added first: each term is rounded once to a fixed lattice, then integers are added.

A term is weight · update. The lattice's step is a power of two that follows from the weights of a batch alone, which its
caller fixed before anything was trained: ``2**-(61 - RANGE_BITS) · W`` for a sum of weights of at most W (the next power of two).
With no value beyond ``2**RANGE_BITS``, the sum stays below 2⁶¹ plus half a step a term: an int64 cannot overflow, for 10⁴
devices of 10⁵ examples each as for two of one. The mean is then off by at most half of 2⁻⁴¹ (2·10⁻¹³) a term of average
weight, less than float32 rounds a mean beyond 10⁻⁵; a server's float64 sum does not know its inputs better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Guard = Callable[[int], AbstractContextManager[object]]

RANGE_BITS: Final = 20
MAX_VALUE: Final = 2.0**RANGE_BITS
"""An update with a value beyond does not count (a server's limit is a norm of 10¹⁸; float32 training is lost long before)."""
BLOCK: Final = 1 << 15
_LEAST_WIDTH: Final = 64  # like BLOCK a power of two: no stretch crosses a block's edge
_LEAST_WEIGHT: Final = 1e-12
_MOST_WEIGHT: Final = 1e15
_MAGIC: Final = 1.5 * 2.0**52
_MAGIC_BITS: Final = int(np.float64(_MAGIC).view(np.int64))
_FAST: Final = 2.0**50


def exponent_for(weights: Sequence[float]) -> int:
    """Return k of the lattice ``2**-k`` for terms of these weights (0 counts nothing).

    Raises ValueError for a weight that is negative, not finite, or neither 0 nor between 10⁻¹² and 10¹⁵.
    """
    for weight in weights:
        if weight != 0 and not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
            raise ValueError(f"a weight is 0 or between {_LEAST_WEIGHT:g} and {_MOST_WEIGHT:g}, not {weight}")
    total = math.fsum(weights)
    return 61 - RANGE_BITS - (math.frexp(total)[1] if total > 0 else 0)


def unguarded(block: int) -> AbstractContextManager[object]:
    """Guard nothing: for a sum that one process adds to."""
    del block
    return nullcontext()


class Adder:
    """Adds rows to integer sums, in blocks that fit a core's cache. Owns its scratch: not for two threads at once."""

    def __init__(self) -> None:
        self._wide = np.empty(BLOCK, np.float64)

    def add(
        self,
        total: Ints,
        rows: Floats,
        weights: Sequence[float],
        exponent: int,
        guard: Guard = unguarded,
        bounds: Sequence[float] | None = None,
    ) -> None:
        """Add ``weights[i] · rows[i]``, float32 ``(k, n)``, to ``total``, int64 ``(n,)``.

        Values must be finite and within ``MAX_VALUE``, ``weights`` those that ``exponent`` was made for. ``guard`` is held,
        with the number of the ``BLOCK`` values, while those of ``total`` change. ``bounds[i]``, if known, is what no value of a row
        exceeds: it saves looking for the largest, and changes no result.
        """
        factors = np.array([math.ldexp(weight, exponent) for weight in weights], np.float64)
        near = bounds is not None and bool((factors * np.array(bounds) < _FAST).all())
        width = max(_LEAST_WIDTH, BLOCK >> max(0, len(rows) - 1).bit_length())
        for at in range(0, total.size, width):
            summed = self._summed(rows[:, at : at + width], factors, near)
            with guard(at // BLOCK):
                total[at : at + width] += summed

    def _summed(self, rows: Floats, factors: Doubles, near: bool) -> Ints:
        """Return the sum of the rows on the lattice, each rounded to nearest, ties to even; valid until the next call.

        ``near`` tells that all are known to be below ``_FAST``.
        """
        if rows.size > self._wide.size:
            self._wide = np.empty(rows.size, np.float64)
        wide = self._wide[: rows.size].reshape(rows.shape)
        np.multiply(rows, factors[:, None], out=wide)
        if not near and max(abs(float(wide.max(initial=0.0))), abs(float(wide.min(initial=0.0)))) >= _FAST:
            return np.asarray(np.rint(wide).astype(np.int64).sum(axis=0), np.int64)
        # Below 2⁵¹, adding 1.5 · 2⁵² rounds to an integer and leaves it in the low bits: no slow conversion. What was added
        # comes out of the sum at once, which may have run over in between.
        wide += _MAGIC
        whole = wide.view(np.int64)
        summed = whole[0] if len(whole) == 1 else whole.sum(axis=0)
        summed -= np.array(len(whole) * _MAGIC_BITS % 2**64, np.uint64).view(np.int64)
        return np.asarray(summed, np.int64)


def as_doubles(total: Ints, exponent: int) -> Doubles:
    """Return the sum that ``total`` stands for, float64 ``(n,)``, rounded once: in its place, the integers are gone."""
    doubles: Doubles = total.view(np.float64)
    for at in range(0, total.size, BLOCK):
        np.ldexp(total[at : at + BLOCK].astype(np.float64), -exponent, out=doubles[at : at + BLOCK])
    return doubles
