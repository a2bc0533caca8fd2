"""How ε grows over the rounds of one job: the same steps again and again, on top of what earlier jobs committed to.

By PLD on the grid of calibration (``accounting``), so that after the last round it is what the noise was calibrated to.
What one step loses is worked out once; a point of the curve then costs a self-composition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.privacy.accounting import CALIBRATION_INTERVAL
from hedgerow.shared.privacy.events import DpSgdSteps, PrivacyEvent, merged

MAX_POINTS: Final = 16
"""How often ε is computed in one job. In between the next point's value counts, which is larger."""


class RoundCharge(msgspec.Struct, frozen=True):
    """What each of ``rounds`` rounds charges (``per_round``), on top of ``earlier``; the whole is meant to stay within ``epsilon``."""

    per_round: DpSgdSteps
    rounds: int
    epsilon: float
    delta: float
    earlier: tuple[PrivacyEvent, ...] = ()


def points(rounds: int) -> tuple[int, ...]:
    """Return the numbers of rounds at which ε is computed: each up to ``MAX_POINTS``, else spaced by squares.

    ε grows about as the root of the steps, so that squares make steps of about equal height.
    """
    if rounds <= MAX_POINTS:
        return tuple(range(1, rounds + 1))
    return tuple(sorted({math.ceil(rounds * (i / MAX_POINTS) ** 2) for i in range(1, MAX_POINTS + 1)}))


class Growth:
    """ε after each number of rounds: never below what was spent, never above what was asked for, never falling.

    It depends on the charge alone, not on when or how often it was asked. Not safe for two threads at once.
    """

    def __init__(self, charge: RoundCharge) -> None:
        self.charge = charge
        self._points = points(charge.rounds)
        self._values: list[float] = []
        self._before: Any = None
        self._step: Any = None

    def after(self, rounds: int) -> float:
        """Return an upper bound of ε after ``rounds`` charged rounds.

        Raises ValueError for fewer than one or more than planned, UnsupportedError if dp-accounting is not installed.
        """
        if not 1 <= rounds <= self.charge.rounds:
            raise ValueError(f"{rounds} rounds of a job that planned {self.charge.rounds}")
        index = next(i for i, point in enumerate(self._points) if point >= rounds)
        # Each point in turn: its rounding, of about 1e-9, must not show as a fall, whichever was asked for first.
        for point in self._points[len(self._values) : index + 1]:
            found = min(self._computed(point), self.charge.epsilon)
            self._values.append(max(found, self._values[-1] if self._values else 0.0))
        return self._values[index]

    def _computed(self, rounds: int) -> float:
        if self._step is None:
            self._step = _loss_of(self.charge.per_round)
            self._before = _composed(self.charge.earlier)
        spent = self._step.self_compose(self.charge.per_round.steps * rounds)
        if self._before is not None:
            spent = self._before.compose(spent)
        return float(spent.get_epsilon_for_delta(self.charge.delta))


def _composed(events: Sequence[PrivacyEvent]) -> Any:
    """Return the loss of ``events`` together, None for none."""
    total: Any = None
    for event in merged(events):
        if not isinstance(event, DpSgdSteps):
            raise UnsupportedError(f"no accounting for {type(event).__name__} before a job's rounds")
        loss = _loss_of(event).self_compose(event.steps)
        total = loss if total is None else total.compose(loss)
    return total


def _loss_of(event: DpSgdSteps) -> Any:
    """Return the privacy loss distribution of one step of ``event``."""
    try:
        from dp_accounting import NeighboringRelation
        from dp_accounting.pld import privacy_loss_distribution
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"privacy accounting needs {error.name}; install 'hedgerow[train]' or 'hedgerow[server]'"
        ) from error
    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=event.noise_multiplier,
        value_discretization_interval=CALIBRATION_INTERVAL,
        sampling_prob=event.sampling_rate,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
    )
