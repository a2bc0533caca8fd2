"""What the round loop needs of an aggregator, whichever way it works inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.packing import Vector


class AggregationError(HedgerowError):
    """The updates that came do not suffice for what the job's strategy does with them."""


class Update(NamedTuple):
    """One device's packed update with what the job's rules let count of it.

    ``weight`` is 1 where the mean is uniform. ``loss`` is the device's training loss in jobs without privacy,
    None elsewhere.
    """

    device: str
    payload: Sequence[memoryview]
    weight: float = 1.0
    loss: float | None = None


class Released(NamedTuple):
    """The next model and the state that the algorithm carries to the next round."""

    model: Vector
    state: bytes


class RoundSum(Protocol):
    """The updates of one round. Not thread-safe: one caller at a time, on any thread."""

    count: int
    """How many updates were added."""

    def add(self, update: Update) -> None:
        """Count ``update``; it is checked whole before any of it counts.

        Raises UpdateRejectedError with everything as it was before the call.
        """

    def release(self, model: Vector) -> Released:
        """Return the next model after ``model``. Raises AggregationError if these updates do not suffice."""


class Aggregator(Protocol):
    """One job's way of aggregating. ``holds_updates`` says that memory grows with the cohort."""

    holds_updates: bool

    def initial_state(self) -> bytes:
        """Return the state before the first round."""

    def open(self, round: int, state: bytes) -> RoundSum:
        """Return an empty sum for ``round``, from the state that the last one released."""
