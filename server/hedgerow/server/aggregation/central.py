"""Aggregation with a central privacy mechanism: checked and clipped here, summed, released with noise.

What binds (each has a test): a device's share of the sum has an L2 norm of at most C, whatever it sent; noise goes on the
sum; the sum is divided by a constant; how many updates came decides nothing. So the released mean is (ε, δ)-private for
each device, and what the strategy's algorithm makes of it is post-processing.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np

from hedgerow.server.aggregation.aggregator import Released, Update
from hedgerow.server.aggregation.algorithm import Algorithm
from hedgerow.server.aggregation.payload import Payload
from hedgerow.shared.errors import IntegrityError, UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import Vector
from hedgerow.shared.privacy.central import CentralPlan, add_central_noise
from hedgerow.shared.privacy.noise import Doubles, RandomStream

# A device clips before it packs, and packing rounds: float16 by 2⁻¹¹ of each value, int8 stochastically by a step of the
# block's scale, which can lengthen an update by half where a few values dwarf the rest. Refusing for that would lose honest
# devices, and not at random, so an update that is a little long is clipped here once more: the sum's sensitivity is C
# all the same. One that is longer still was not clipped by its device at all, and contributes nothing.
TOLERANCE: Final[dict[Packing, float]] = {"float32": 1 + 1e-6, "float16": 1 + 1e-3, "int8": 2.0}
_SLACK: Final = 1 - 1e-12
_LENGTH_BYTES: Final = 8


class ReleaseMechanism(Protocol):
    """How a sum of clipped updates becomes a private one; its state is carried in the checkpoint, round by round.

    State is opaque bytes (noise of past rounds, a clip norm that adapts); it may be secret, and is kept like the model
    that is not yet released. ``denominator`` is a constant of the job.
    """

    denominator: float

    def initial_state(self, n: int) -> bytes:
        """Return the state before the first round of a model of ``n`` values."""

    def clip_norm_l2(self, state: bytes) -> float:
        """Return C of the round that begins in ``state``."""

    def release(self, state: bytes, total: Doubles) -> tuple[bytes, Doubles]:
        """Return the next state and ``total`` with noise, which may be the same array."""


class FixedGaussian:
    """Independent Gaussian noise of z·C in every round, C fixed (``hedgerow.shared.privacy.central``). No state."""

    def __init__(self, plan: CentralPlan, stream: RandomStream) -> None:
        self.denominator = plan.denominator
        self._plan = plan
        self._stream = stream

    def initial_state(self, n: int) -> bytes:
        """Return nothing: rounds do not depend on each other."""
        del n
        return b""

    def clip_norm_l2(self, state: bytes) -> float:
        """Return the plan's clip norm."""
        del state
        return self._plan.clip_norm_l2

    def release(self, state: bytes, total: Doubles) -> tuple[bytes, Doubles]:
        """Add the noise to ``total`` itself."""
        plan = self._plan
        return state, add_central_noise(total, plan.noise_multiplier, plan.clip_norm_l2, self._stream, total)


class CentralAggregator:
    """Sums clipped updates of ``n`` values and releases them through ``mechanism``, in bounded memory.

    The sum is float64 whatever the size (two model copies), so that its rounding stays far below the noise.
    """

    holds_updates = False

    def __init__(self, algorithm: Algorithm, mechanism: ReleaseMechanism, n: int, packing: Packing) -> None:
        self._algorithm = algorithm
        self._mechanism = mechanism
        self._n = n
        self._packing: Packing = packing

    def initial_state(self) -> bytes:
        """Return the first state of mechanism and algorithm."""
        return _joined(self._mechanism.initial_state(self._n), self._algorithm.init(self._n))

    def open(self, round: int, state: bytes) -> CentralSum:
        """Return an empty sum. Raises IntegrityError for a state that is none of this aggregator's."""
        del round
        return CentralSum(self._algorithm, self._mechanism, self._n, self._packing, state)


class CentralSum:
    """The sum of one round's updates, each clipped to C and counted once; weights play no part."""

    def __init__(
        self, algorithm: Algorithm, mechanism: ReleaseMechanism, n: int, packing: Packing, state: bytes
    ) -> None:
        self.count = 0
        self._algorithm = algorithm
        self._mechanism = mechanism
        self._packing: Packing = packing
        self._mechanism_state, self._algorithm_state = _split(state)
        self._clip = mechanism.clip_norm_l2(self._mechanism_state)
        self._total: Doubles = np.zeros(n, np.float64)
        self._released = False

    def add(self, update: Update) -> None:
        """Add one update, clipped. Raises UpdateRejectedError with the sum as it was (``over-norm``, ``non-finite``, …)."""
        payload = Payload(update.payload, self._total.size, self._packing)
        factor = self._factor(_norm(payload))
        for offset, values in payload.blocks():
            into = self._total[offset : offset + values.size]
            wide = values.astype(np.float64)
            if factor != 1.0:
                wide *= factor
            into += wide
        self.count += 1

    def release(self, model: Vector) -> Released:
        """Return the next model after ``model``, from the sum with noise over the constant, however many updates came.

        Raises RuntimeError the second time: a sum that is released twice costs twice.
        """
        if self._released:
            raise RuntimeError("this round's sum was released before")
        self._released = True
        mechanism = self._mechanism
        after, noisy = mechanism.release(self._mechanism_state, self._total)
        state, moved = self._algorithm.apply(self._algorithm_state, model, noisy, mechanism.denominator)
        return Released(moved, _joined(after, state))

    def _factor(self, norm: float) -> float:
        limit = TOLERANCE[self._packing] * self._clip
        if norm > limit:
            raise UpdateRejectedError(
                "over-norm", f"L2 norm {norm:.6g}, the job clips to {self._clip:.6g}: the device did not clip"
            )
        return 1.0 if norm <= self._clip else self._clip / norm * _SLACK


def _norm(payload: Payload) -> float:
    """Return the L2 norm in float64. Raises UpdateRejectedError (``non-finite``)."""
    squares = 0.0
    for offset, values in payload.blocks():
        wide = values.astype(np.float64)
        # Finite float32 values have finite squares in float64: only NaN and infinity end otherwise.
        square = float(np.dot(wide, wide))
        if not math.isfinite(square):
            end = offset + values.size
            raise UpdateRejectedError("non-finite", f"a value between {offset} and {end} is not finite")
        squares += square
    return math.sqrt(squares)


def _joined(mechanism: bytes, algorithm: bytes) -> bytes:
    if not mechanism and not algorithm:
        return b""
    return len(mechanism).to_bytes(_LENGTH_BYTES, "little") + mechanism + algorithm


def _split(state: bytes) -> tuple[bytes, bytes]:
    if not state:
        return b"", b""
    end = _LENGTH_BYTES + int.from_bytes(state[:_LENGTH_BYTES], "little")
    if len(state) < max(end, _LENGTH_BYTES):
        raise IntegrityError("the state of the release mechanism is cut off")
    return state[_LENGTH_BYTES:end], state[end:]
