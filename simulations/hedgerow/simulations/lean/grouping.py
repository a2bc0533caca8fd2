"""Which tasks are trained in one call, and which calls a worker is handed at once.

Units depend on the batch and the group size alone, since what shares a kernel call may show in the last bit. Bundles of units depend
on the number of workers too: they show in nothing but the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from hedgerow.simulations.engine.protocol import Task
from hedgerow.simulations.lean.messages import Unit

MAX_BUNDLE: Final = 256
"""Tasks in one message: two of them and a reply fit a pipe's buffer, so that nobody waits for the other to read."""
_PARTS: Final = 4


def cost_of(task: Task, examples: int, local_epochs: int) -> float:
    """Return how long a task takes, in example passes."""
    if task.private is not None:
        return task.private.steps * max(1.0, task.private.sampling_rate * examples)
    return float((task.epochs or local_epochs) * examples)


def units_of(tasks: Sequence[Task], costs: Sequence[float], group: int) -> list[Unit]:
    """Return the tasks in as few units of at most ``group`` as there must be, all of about one size, the longest first.

    Tasks that take as long as each other stay in their order.
    """
    order = sorted(range(len(tasks)), key=lambda place: -costs[place])
    count = -(-len(order) // group)
    cuts = [len(order) * at // count for at in range(count + 1)] if count else []
    return [Unit(tuple(order[a:b]), tuple(tasks[place] for place in order[a:b])) for a, b in pairwise(cuts)]


def bundles_of(units: Sequence[Unit], costs: Sequence[float], workers: int) -> list[tuple[Unit, ...]]:
    """Return the units in their order, in bundles that get smaller towards the end, for workers that take one after another.

    Each takes about a ``1 / (4 · workers)`` share of what is left (Polychronopoulos and Kuck 1987, guided self-scheduling),
    so that few messages go, and all workers end at about the same time.
    """
    price = [sum(costs[place] for place in unit.places) for unit in units]
    left = sum(price)
    bundles: list[tuple[Unit, ...]] = []
    at = 0
    while at < len(units):
        share, taken, size, end = left / (_PARTS * workers), 0.0, 0, at
        while end < len(units) and (
            end == at or (taken + price[end] <= share and size + len(units[end].places) <= MAX_BUNDLE)
        ):
            taken += price[end]
            size += len(units[end].places)
            end += 1
        bundles.append(tuple(units[at:end]))
        left -= taken
        at = end
    return bundles
