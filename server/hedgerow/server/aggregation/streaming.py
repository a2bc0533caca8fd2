"""Streaming aggregation: each update is added as it arrives and forgotten.

Memory is the sum and one block, whatever the cohort. Up to ``WIDE_LIMIT`` values the sum is float64: every partial sum
is then exact or within one float64 rounding, so that the order of arrival does not show in the float32 result except
where an exact mean lies within about 1e-16 (relative to the largest partial sum) of a rounding boundary. Above, the sum
is float32, so that it costs one model copy; orders then differ by at most ``n_updates`` float32 roundings of the
largest partial sum.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hedgerow.server.aggregation.aggregator import Released, Update
from hedgerow.server.aggregation.algorithm import Algorithm
from hedgerow.server.aggregation.payload import STEP, Payload
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import Vector

WIDE_LIMIT: Final = 4 * 1024 * 1024


class StreamingAggregator:
    """Aggregates ``n``-value updates with a pure algorithm, in bounded memory."""

    holds_updates = False

    def __init__(
        self, algorithm: Algorithm, n: int, packing: Packing, max_norm_l2: float | None = None
    ) -> None:
        self._algorithm = algorithm
        self._n = n
        self._packing: Packing = packing
        self._max_norm_l2 = max_norm_l2

    def initial_state(self) -> bytes:
        """Return the algorithm's first state."""
        return self._algorithm.init(self._n)

    def open(self, round: int, state: bytes) -> StreamingSum:
        """Return an empty sum; ``round`` plays no part."""
        del round
        return StreamingSum(self._algorithm, self._n, self._packing, self._max_norm_l2, state)


class StreamingSum:
    """The weighted sum of one round's updates."""

    def __init__(
        self, algorithm: Algorithm, n: int, packing: Packing, max_norm_l2: float | None, state: bytes
    ) -> None:
        self.count = 0
        self._algorithm = algorithm
        self._packing: Packing = packing
        self._max_norm_l2 = max_norm_l2
        self._state = state
        self._weight = 0.0
        self._total: npt.NDArray[np.floating[Any]] = np.zeros(
            n, np.float64 if n <= WIDE_LIMIT else np.float32
        )

    def add(self, update: Update) -> None:
        """Add one update, ``weight`` times. Raises UpdateRejectedError; the sum is then as it was."""
        payload = Payload(update.payload, self._total.size, self._packing)
        payload.check(self._max_norm_l2)
        self._add(payload, update.weight)
        self._weight += update.weight
        self.count += 1

    def release(self, model: Vector) -> Released:
        """Return the algorithm's next model and state."""
        state, after = self._algorithm.apply(self._state, model, self._total, self._weight)
        return Released(after, state)

    def _add(self, payload: Payload, weight: float) -> None:
        scratch = np.empty(min(STEP, payload.n), self._total.dtype)
        factor = self._total.dtype.type(weight)
        for offset, values in payload.blocks():
            into = self._total[offset : offset + values.size]
            if weight == 1.0 and into.dtype == values.dtype:
                np.add(into, values, out=into)
                continue
            wide = scratch[: values.size]
            np.copyto(wide, values)
            if weight != 1.0:
                np.multiply(wide, factor, out=wide)
            np.add(into, wide, out=into)
