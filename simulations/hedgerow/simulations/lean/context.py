"""What workers are born with: the world they train in, and the arrays they share with the parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.shared.job import TrainingSpec
from hedgerow.shared.packing import Vector
from hedgerow.simulations.lean.arena import Arena, Stripes
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.scenario.spec import Scenario

Models = npt.NDArray[np.float32]


class World(NamedTuple):
    """What stays the same in all orders. The model has ``n`` values, of which the first ``n_shared`` travel; there are ``classes``
    kinds of label, 0 without labels.
    """

    scenario: Scenario
    population: Population
    n: int
    n_shared: int
    classes: int

    @property
    def training(self) -> TrainingSpec:
        """Return the job's training block."""
        return self.scenario.job.training


@dataclass(frozen=True)
class Shared:
    """The arrays that parent and workers share: sums int64, all others float32. ``stripes`` guards the sums among processes.

    ``held`` is a model that the engine's caller keeps here; ``models`` are copies of those that are elsewhere.
    """

    held: Arena
    models: Arena
    control: Arena
    sums: Arena
    control_sums: Arena
    updates: Arena
    inputs: Arena
    outputs: Arena
    stripes: Stripes | None

    @classmethod
    def make(cls, *, shared: bool) -> Shared:
        """Return empty arenas, in memory that forked processes share or in this process's own."""
        return cls(
            held=Arena("held", np.float32, shared=shared),
            models=Arena("models", np.float32, shared=shared),
            control=Arena("control", np.float32, shared=shared),
            sums=Arena("sums", np.int64, shared=shared),
            control_sums=Arena("control-sums", np.int64, shared=shared),
            updates=Arena("updates", np.float32, shared=shared),
            inputs=Arena("inputs", np.float32, shared=shared),
            outputs=Arena("outputs", np.float32, shared=shared),
            stripes=Stripes() if shared else None,
        )

    def base(self, models: int, n: int) -> Models:
        """Return the models that an order means, ``(models, n)``: with none, the held one is the only."""
        return self.models.array(models, n) if models else self.held.array(1, n)

    def show(self, model: Vector) -> int:
        """Put ``model``, float32 ``(n,)``, where workers see it; return what ``base`` then calls it."""
        if self.held.begins_with(model):
            return 0
        self.models.array(1, model.size)[0] = model
        return 1

    def close(self) -> None:
        """Give everything back. Idempotent."""
        arenas = (self.held, self.models, self.control, self.sums, self.control_sums)
        for arena in (*arenas, self.updates, self.inputs, self.outputs):
            arena.close()
        if self.stripes is not None:
            self.stripes.close()
