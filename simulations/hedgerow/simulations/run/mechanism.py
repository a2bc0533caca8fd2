"""The seam of privacy in a run: what a device is told, what is charged, what happens to the sum, what may be said.

A mechanism owns its state (bytes in the checkpoint), so that correlated noise, adaptive clipping and secure aggregation
fit here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.records import PrivacySummary
from hedgerow.simulations.run.spending import Spending

Doubles = npt.NDArray[np.float64]
CLAIM = "simulated, no claim"


class Terms(NamedTuple):
    """What a device's task says of privacy."""

    private: StepPlan | None = None
    clip_norm_l2: float | None = None


class Noised(NamedTuple):
    """What a sum became: ``total`` float64 ``(n,)``, what it is divided by, and the mechanism's next state."""

    total: Doubles
    weight: float
    state: bytes


class Mechanism(Protocol):
    """One mode of privacy in one run. ``uniform`` says that every update weighs 1."""

    mode: str
    uniform: bool

    def initial(self) -> bytes:
        """Return the state before the first round."""

    def terms(self, device: int) -> Terms | None:
        """Return what ``device`` is told; None where it declines the job."""

    def charges(self, round: int, trained: Sequence[int]) -> tuple[Charge, ...]:
        """Return what ``round`` costs whom; ``trained`` are the devices that draw noise in it."""

    def release(self, round: int, total: Doubles, weight: float, state: bytes) -> Noised:
        """Return the sum as it may be used; ``total`` may be written over."""

    def epsilon(self, spending: Spending) -> float | None:
        """Return ε of what was spent, the largest over devices; None where there is none to tell."""

    def summary(self, spending: Spending) -> PrivacySummary:
        """Return what a fleet's report would claim, and that nothing is claimed here."""
