"""Units that depend on the batch alone, and bundles that give all workers something to do."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.simulations.engine.protocol import Task
from hedgerow.simulations.lean.grouping import MAX_BUNDLE, bundles_of, cost_of, units_of


def batch_of(count: int, seed: int = 0) -> tuple[list[Task], list[float]]:
    costs = [float(c) for c in np.random.default_rng(seed).integers(1, 200, count)]
    return [Task(device, 1) for device in range(count)], costs


def test_cost_counts_example_passes() -> None:
    private = StepPlan(sampling_rate=0.1, noise_multiplier=1.0, clip_norm_l2=1.0, steps=20)
    assert cost_of(Task(0, 1), 30, 2) == 60
    assert cost_of(Task(0, 1, epochs=5), 30, 2) == 150
    assert cost_of(Task(0, 1, private=private), 30, 2) == 60
    assert cost_of(Task(0, 1, private=private), 1, 2) == 20


@pytest.mark.parametrize("group", [1, 3, 8, 50])
def test_every_task_is_in_one_unit_the_longest_first(group: int) -> None:
    given, costs = batch_of(40)
    units = units_of(given, costs, group)
    places = [place for unit in units for place in unit.places]
    assert sorted(places) == list(range(40))
    assert [costs[p] for p in places] == sorted(costs, reverse=True)
    assert all(unit.tasks == tuple(given[p] for p in unit.places) for unit in units)
    sizes = [len(unit.places) for unit in units]
    assert len(units) == -(-40 // group)
    assert max(sizes) <= group
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 5, 100, 3000])
def test_bundles_hold_all_units_in_order_and_none_is_the_most_of_the_work(workers: int, count: int) -> None:
    given, costs = batch_of(count)
    units = units_of(given, costs, 2)
    bundles = bundles_of(units, costs, workers)
    assert [unit for bundle in bundles for unit in bundle] == units
    prices = [sum(costs[p] for unit in bundle for p in unit.places) for bundle in bundles]
    longest_unit = sum(sorted(costs)[-2:])
    assert max(prices) <= max(longest_unit, sum(costs) / (4 * workers))
    assert all(sum(len(u.places) for u in bundle) <= MAX_BUNDLE for bundle in bundles)
    assert len(bundles) <= count / MAX_BUNDLE + 4 * workers * (2 + np.log(count))


def test_devices_without_examples_cost_nothing_and_are_still_handed_out() -> None:
    given, costs = [Task(device, 1) for device in range(600)], [0.0] * 600
    bundles = bundles_of(units_of(given, costs, 1), costs, 2)
    assert sum(len(bundle) for bundle in bundles) == 600


def test_an_empty_batch_is_no_bundle() -> None:
    assert bundles_of(units_of([], [], 4), [], 2) == []
