"""A batch as orders to workers, and their replies as the batch's answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Batch, Outcome, Task, Vector
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.grouping import bundles_of, cost_of, units_of
from hedgerow.simulations.lean.lattice import as_doubles, exponent_for
from hedgerow.simulations.lean.messages import Failed, Reply, Trained, TrainOrder, replies

MAX_EACH_BYTES: Final = 4 << 30
"""Most bytes of single updates in one batch, for strategies that look at each: they are all in memory at once, twice."""


class Plan(NamedTuple):
    """The orders of a batch, and the lattices of its sums. ``control`` says that there is a second sum."""

    orders: list[TrainOrder]
    exponent: int
    control_exponent: int
    control: bool


def plan(batch: Batch, world: World, group: int, workers: int, *, control: bool, held: bool = False) -> Plan:
    """Return how ``batch`` is carried out; ``held`` tells that its only model is the held one.

    Raises ValueError for a task of a device, model or weight that there is not, EngineError if single updates are
    wanted of more than fit ``MAX_EACH_BYTES``.
    """
    _check(batch, world)
    exponent = exponent_for([task.weight for task in batch.tasks])
    control_exponent = exponent_for([1.0] * len(batch.tasks))
    costs = [_cost(task, world) for task in batch.tasks]
    bundles = bundles_of(units_of(batch.tasks, costs, group), costs, workers)
    orders = [
        TrainOrder(
            units=bundle,
            models=0 if held else len(batch.models),
            batch=len(batch.tasks),
            exponent=exponent,
            control_exponent=control_exponent,
            each=batch.want == "each",
            control=control,
        )
        for bundle in bundles
    ]
    return Plan(orders, exponent, control_exponent, control)


def is_held(batch: Batch, shared: Shared) -> bool:
    """Return whether the batch's only model is the one that the engine holds for its caller."""
    return len(batch.models) == 1 and shared.held.begins_with(batch.models[0])


def load(batch: Batch, shared: Shared, n: int, *, control: bool, held: bool = False) -> None:
    """Put the batch's models, and the control variate, where workers see them. Raises ValueError for another shape."""
    for version in sorted({task.version for task in batch.tasks}):
        values = of_size(batch.models[version], n, f"model {version}")
        if not held:
            shared.models.array(len(batch.models), n)[version] = values
    if control:
        shared.control.array(n)[:] = 0 if batch.control is None else of_size(batch.control, n, "control")
        shared.control_sums.array(n)
    shared.sums.array(n)
    if batch.want == "each":
        shared.updates.array(len(batch.tasks), n)


def clear(shared: Shared, n: int, *, control: bool) -> None:
    """Begin the sums at zero."""
    shared.sums.array(n)[:] = 0
    if control:
        shared.control_sums.array(n)[:] = 0


def answer_of(batch: Batch, planned: Plan, answers: Iterable[bytes], shared: Shared, n: int) -> Answer:
    """Return what the batch came to, in the sums' own memory. Raises EngineError or StorageError with what a worker said."""
    outcomes: list[Outcome | None] = [None] * len(batch.tasks)
    for reply in decoded(answers):
        if isinstance(reply, Trained):
            for place, outcome in zip(reply.places, reply.outcomes, strict=True):
                outcomes[place] = outcome
    found = tuple(outcome for outcome in outcomes if outcome is not None)
    if len(found) != len(outcomes):
        raise EngineError(f"{len(outcomes) - len(found)} tasks of {len(outcomes)} were not answered")
    counted = [place for place, outcome in enumerate(found) if outcome.rejected is None]
    each = shared.updates.array(len(batch.tasks), n) if batch.want == "each" and counted else None
    control = as_doubles(shared.control_sums.array(n), planned.control_exponent) if planned.control else None
    return Answer(
        total=as_doubles(shared.sums.array(n), planned.exponent),
        weight=math.fsum(batch.tasks[place].weight for place in counted),
        count=len(counted),
        outcomes=found,
        updates={} if each is None else {batch.tasks[place].device: each[place].copy() for place in counted},
        control=control,
    )


def decoded(answers: Iterable[bytes]) -> list[Reply]:
    """Return the replies. Raises EngineError or StorageError if one tells of failure."""
    found = [replies.decode(answer) for answer in answers]
    for reply in found:
        if isinstance(reply, Failed):
            raise StorageError(reply.reason) if reply.storage else EngineError(reply.reason)
    return found


def _check(batch: Batch, world: World) -> None:
    devices, models = world.population.devices, len(batch.models)
    for task in batch.tasks:
        if not 0 <= task.device < devices or not 0 <= task.version < models or task.round < 1:
            raise ValueError(f"{task} of {devices} devices, {models} models, rounds from 1")
    needed = 4 * world.n * len(batch.tasks)
    if batch.want == "each" and needed > MAX_EACH_BYTES:
        raise EngineError(
            f"{len(batch.tasks)} single updates of {world.n} values take {needed >> 20} MiB, at most {MAX_EACH_BYTES >> 20}: "
            "use a smaller cohort, or a strategy that needs their sum only"
        )


def _cost(task: Task, world: World) -> float:
    examples = min(world.population.at(task.round).count(task.device), world.training.max_samples)
    return cost_of(task, examples, world.training.local_epochs)


def of_size(values: Vector, n: int, what: str) -> Vector:
    """Return ``values`` if they are float32 ``(n,)``. Raises ValueError naming ``what`` they are."""
    if values.shape != (n,) or values.dtype != np.float32:
        raise ValueError(f"{what}: expected float32 ({n},), got {values.dtype} {values.shape}")
    return values
