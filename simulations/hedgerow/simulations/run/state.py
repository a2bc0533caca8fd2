"""What a run carries from round to round: all of it is in the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hedgerow.shared.packing import Vector
from hedgerow.simulations.run.flight import Flight
from hedgerow.simulations.run.records import RoundRecord

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Totals:
    """What each device did so far: int64 and float64 ``(devices,)``; ``train_s`` is simulated time."""

    rounds: Ints
    bytes_up: Ints
    bytes_down: Ints
    train_s: Doubles

    @classmethod
    def of(cls, devices: int) -> Totals:
        """Return zeros."""
        rounds, up, down = np.zeros((3, devices), np.int64)
        return cls(rounds, up, down, np.zeros(devices))


@dataclass
class State:
    """``round`` counts releases so far. ``model`` is the engine's memory and changes in place. ``flight`` is what an asynchronous run has under way."""

    model: Vector
    rule: bytes
    mechanism: bytes
    totals: Totals
    round: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    records: list[RoundRecord] = field(default_factory=list)
    initial_scores: dict[str, float] = field(default_factory=dict)
    flight: Flight | None = None
