"""Evaluation from the parent: the recipe's ``predict`` and the devices' scores, spread over the workers where it pays.

What is forwarded together depends on the examples alone, so that scores do not show the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hedgerow.models.recipe import Floats, Predict
from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.protocol import DeviceScores
from hedgerow.simulations.kernel.protocol import Kernel
from hedgerow.simulations.lean.batches import decoded
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.messages import PredictOrder, Scored, ScoreOrder, encoder
from hedgerow.simulations.lean.pool import Pool
from hedgerow.simulations.lean.scoring import stretches

ROWS: Final = 512
"""Examples forwarded at once by one worker; fewer than that are not worth a message."""


def predictor(model: Vector, kernel: Kernel, pool: Pool, shared: Shared) -> Predict:
    """Return the function from inputs ``(k, *input)`` to outputs ``(k, *output)`` of ``model``, float32."""
    shown = shared.show(model)

    def predict(x: Floats) -> Floats:
        if len(x) <= ROWS or pool.size == 1:
            return in_parts(model, kernel, x)
        return _spread(kernel.forward(model, x[:1]).shape[1:], x, pool, shared, shown)

    return predict


def in_parts(model: Vector, kernel: Kernel, x: Floats) -> Floats:
    """Return the outputs as workers would make them, without them."""
    cuts = range(0, max(1, len(x)), ROWS)
    return np.concatenate([kernel.forward(model, np.ascontiguousarray(x[at : at + ROWS])) for at in cuts])


def device_scores(
    model: Vector, devices: Sequence[int], round: int, world: World, pool: Pool, shared: Shared
) -> DeviceScores:
    """Return the scores of ``model`` on each device's own held-out examples, in the order asked for."""
    shown = shared.show(model)
    test = world.population.test_at(round)
    counts = [1 + (0 if test is None else test.count(device)) for device in devices]
    parts = stretches(counts, ROWS)
    orders = [
        encoder.encode(ScoreOrder(tuple(int(d) for d in devices[part]), round, shown)) for part in parts
    ]
    found: dict[int, tuple[float, float]] = {}
    for reply in decoded(pool.run(orders, _nothing)):
        if isinstance(reply, Scored):
            found.update(zip(reply.devices, zip(reply.loss, reply.score, strict=True), strict=True))
    scores = np.array([found[device] for device in devices], np.float64).reshape(len(devices), 2)
    return DeviceScores(np.asarray(devices, np.int64), scores[:, 0].copy(), scores[:, 1].copy())


def _spread(output: tuple[int, ...], x: Floats, pool: Pool, shared: Shared, shown: int) -> Floats:
    rows, shape = len(x), x.shape[1:]
    shared.inputs.array(rows, *shape)[:] = x
    out = shared.outputs.array(rows, *output)
    orders = [
        encoder.encode(PredictOrder(at, min(rows, at + ROWS), rows, shape, output, shown))
        for at in range(0, rows, ROWS)
    ]
    decoded(pool.run(orders, _nothing))
    copied: Floats = out.copy()
    return copied


def _nothing() -> None:
    """Evaluation adds nothing up: what a failed try wrote is written again."""
