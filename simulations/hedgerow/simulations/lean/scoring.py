"""Evaluation on a worker: outputs for rows of the shared input, and scores on devices' own held-out examples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hedgerow.models.recipe import Recipe
from hedgerow.shared.packing import Vector
from hedgerow.simulations.kernel.protocol import Kernel
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.keeping import Keeping
from hedgerow.simulations.lean.lattice import Floats, Ints
from hedgerow.simulations.lean.messages import Predicted, PredictOrder, Scored, ScoreOrder
from hedgerow.simulations.lean.process import give_back_free_memory


class Scoring:
    """Evaluates the first of the shared models, or the held one."""

    def __init__(
        self, world: World, recipe: Recipe, kernel: Kernel, keeping: Keeping, shared: Shared
    ) -> None:
        self._world = world
        self._counts_hits = recipe.task == "classification"
        self._kernel = kernel
        self._keeping = keeping
        self._shared = shared
        self._tidy = False

    def predict(self, order: PredictOrder) -> Predicted:
        """Write the outputs of the rows asked for."""
        model = self._shared.base(order.models, self._world.n)[0]
        x = self._shared.inputs.array(order.rows, *order.shape)[order.first : order.last]
        out = self._shared.outputs.array(order.rows, *order.output)
        out[order.first : order.last] = self._kernel.forward(model, x)
        self._tidy_up()
        return Predicted()

    def score(self, order: ScoreOrder) -> Scored:
        """Return each device's mean loss and share of hits; NaN without examples, the share also without labels."""
        model = self._shared.base(order.models, self._world.n)[0]
        scores = [self._device(model, device, order.round) for device in order.devices]
        self._tidy_up()
        return Scored(order.devices, tuple(loss for loss, _ in scores), tuple(hits for _, hits in scores))

    def _tidy_up(self) -> None:
        """Give back, once, what the module was born with before it borrowed the model's memory."""
        if not self._tidy:
            give_back_free_memory()
            self._tidy = True

    def _device(self, model: Vector, device: int, round: int) -> tuple[float, float]:
        test = self._world.population.test_at(round)
        if test is None or test.count(device) == 0:
            return math.nan, math.nan
        x, y = test.of(device)
        mine = self._keeping.model(model, device, round)
        loss = float(self._kernel.losses(mine, x, y).mean(dtype=np.float64))
        return loss, self._hits(mine, x, y)

    def _hits(self, model: Vector, x: Floats, y: Ints | None) -> float:
        if y is None or not self._counts_hits:
            return math.nan
        return float((self._kernel.forward(model, x).argmax(axis=1) == y).mean())


def stretches(counts: Sequence[int], most: int) -> list[slice]:
    """Return consecutive stretches of things of these sizes, each of about ``most`` in all."""
    cuts, taken = [0], 0
    for at, count in enumerate(counts):
        if taken and taken + count > most:
            cuts.append(at)
            taken = 0
        taken += count
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(counts)], strict=True) if a < b]
