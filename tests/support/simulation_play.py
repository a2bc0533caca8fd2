"""Playing tiny runs in tests, and the tiny recipe's training worked out in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.support.simulation_engine import InProcessEngine

from hedgerow.simulations.engine.protocol import Engine
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.play import Plan, play_setting
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.setting import Setting


def played(setting: Setting, folder: Path | None = None, **plan: object) -> Result:
    """Return the result of a setting, trained in this process."""
    return play_setting(setting, Plan(folder=folder, **plan), Interrupt(), InProcessEngine.make)  # type: ignore[arg-type]


def opened(setting: Setting, engine: Engine | None = None) -> Run:
    """Return a run to be played round by round."""
    return Run.of(setting, engine or InProcessEngine(setting), Ledger())


class LinearOracle:
    """The tiny recipe without torch: y = w·x + b against the sum of x, squared error, whole batches, plain descent."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def gradient(self, model: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the gradient of the mean loss, float64 ``(4,)``: three weights and the bias."""
        error = x @ model[:3] + model[3] - x.sum(axis=1)
        return np.concatenate([2 * (error[:, None] * x).mean(axis=0), [2 * error.mean()]])

    def update(
        self, model: np.ndarray, x: np.ndarray, steps: int = 1, correction: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """Return new − old after so many whole-batch steps."""
        at = model.astype(np.float64)
        for _ in range(steps):
            at = at - self.rate * (self.gradient(at, x) + correction)
        moved: np.ndarray = at - model
        return moved
