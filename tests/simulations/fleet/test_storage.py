"""What devices have stored in a round, and who lies with their labels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_scenarios import scenario

from hedgerow.models.recipe import find_recipe
from hedgerow.simulations.fleet.storage import stored_in
from hedgerow.simulations.population.raw import RawPopulation, raw_population
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import Scenario


def scene(**changes: Any) -> tuple[Scenario, World, RawPopulation]:
    made = scenario(**changes)
    raw = raw_population(made, find_recipe(made.job.recipe), Path())
    return made, World(made, np.zeros(made.population.devices, np.int64)), raw


def test_byzantine_devices_turn_their_labels_round_from_their_round_on() -> None:
    made, world, raw = scene(faults__byzantine={"kind": "label-flip", "share": 0.3, "from_round": 4})
    before, after = stored_in(raw, made, world, 3), stored_in(raw, made, world, 4)

    assert after.differs(before) == np.flatnonzero(world.byzantine).tolist()
    assert len(after.differs(before)) == 3
    for device, (old, new) in enumerate(zip(before.devices, after.devices, strict=True)):
        assert old.labels is not None and new.labels is not None
        np.testing.assert_array_equal(old.samples, new.samples)
        expected = 9 - old.labels if world.byzantine[device] else old.labels
        np.testing.assert_array_equal(new.labels, expected)


@pytest.mark.parametrize("kind", ["sign-flip", "scale", "noise", "nan"])
def test_other_attacks_leave_the_data_alone(kind: str) -> None:
    made, world, raw = scene(faults__byzantine={"kind": kind, "share": 1.0})

    assert stored_in(raw, made, world, 1).devices == raw.phases[0].devices


def test_equal_keys_mean_equal_contents() -> None:
    made, world, raw = scene(
        population__drift={"from_round": 3, "rotate_labels": True, "devices": 0.5},
        faults__byzantine={"kind": "label-flip", "share": 0.2, "from_round": 5},
        job__rounds=8,
    )
    found = [stored_in(raw, made, world, round) for round in range(1, 9)]

    assert [one.key for one in found] == [(1, False)] * 2 + [(3, False)] * 2 + [(3, True)] * 4
    for one, other in itertools.pairwise(found):
        assert bool(other.differs(one)) == (other.key != one.key)


def test_what_drifts_is_stored_by_half_of_the_devices() -> None:
    made, world, raw = scene(population__drift={"from_round": 3, "rotate_labels": True, "devices": 0.5})
    before, after = stored_in(raw, made, world, 2), stored_in(raw, made, world, 3)

    assert len(after.differs(before)) == 5
    for device in after.differs(before):
        old, new = before.devices[device].labels, after.devices[device].labels
        assert old is not None and new is not None
        np.testing.assert_array_equal(new, (old + 1) % 10)
