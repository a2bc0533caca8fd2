"""What goes wrong in which round is a function of the scenario alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from hedgerow.shared.job import Job, PrivacySpec
from hedgerow.simulations.fleet.schedule import MOST_ROUNDS_AWAY, faults_in
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import AvailabilitySpec, FaultsSpec, PopulationSpec, Scenario

DEVICES, ROUNDS = 40, 200
ALL = FaultsSpec(leave=0.1, kill=0.1, server_kill=0.1, dropout=0.1)


def scenario(faults: FaultsSpec = ALL, seed: int = 7) -> Scenario:
    job = Job("job", "digits-cnn", PrivacySpec("none"), rounds=ROUNDS)
    return Scenario("s", job, PopulationSpec(DEVICES), seed=seed, faults=faults)


def world(of: Scenario) -> World:
    return World(of, np.zeros(DEVICES, np.int64))


def schedule(of: Scenario) -> list[tuple[object, ...]]:
    return [tuple(faults_in(of, world(of), round)) for round in range(1, ROUNDS + 1)]


def test_asked_again_in_any_order_it_is_the_same() -> None:
    one = scenario()
    backwards = [tuple(faults_in(one, world(one), round)) for round in range(ROUNDS, 0, -1)]

    assert schedule(one) == backwards[::-1]


def test_another_seed_has_other_faults() -> None:
    assert schedule(scenario(seed=7)) != schedule(scenario(seed=8))


def test_a_world_without_faults_is_quiet_in_every_round() -> None:
    calm = scenario(FaultsSpec())

    assert all(faults_in(calm, world(calm), round).quiet for round in range(1, ROUNDS + 1))


def test_faults_come_as_often_as_asked() -> None:
    one = scenario()
    found = [faults_in(one, world(one), round) for round in range(1, ROUNDS + 1)]
    n = DEVICES * ROUNDS
    # Four standard deviations of a share of 0.1 over so many draws.
    near = 4 * (0.1 * 0.9 / n) ** 0.5

    assert sum(len(f.leave) for f in found) / n == pytest.approx(0.1, abs=near)
    assert sum(len(f.kill) for f in found) / n == pytest.approx(0.1 * 0.9, abs=near)
    assert sum(len(f.silent) for f in found) / n == pytest.approx(0.1 * 0.81, abs=near)
    assert sum(f.server_kill for f in found) / ROUNDS == pytest.approx(0.1, abs=4 * (0.09 / ROUNDS) ** 0.5)


def test_a_device_has_one_fault_a_round_and_stays_away_one_or_two() -> None:
    one = scenario(msgspec.structs.replace(ALL, leave=0.4, kill=0.4, dropout=0.4))
    away = set()
    for round in range(1, ROUNDS + 1):
        found = faults_in(one, world(one), round)
        assert not (
            found.leave.keys() & found.kill or found.leave.keys() & found.silent or found.kill & found.silent
        )
        away |= set(found.leave.values())

    assert away == set(range(1, MOST_ROUNDS_AWAY + 1))


def test_certain_faults_hit_everybody() -> None:
    every = scenario(FaultsSpec(kill=1.0, server_kill=1.0))
    found = faults_in(every, world(every), 1)

    assert found.kill == frozenset(range(DEVICES))
    assert found.server_kill
    assert not found.quiet


def test_devices_that_are_not_there_are_cut_off() -> None:
    one = msgspec.structs.replace(scenario(FaultsSpec()), availability=AvailabilitySpec("random", rate=0.5))
    here = world(one)

    for round in range(1, 6):
        absent = frozenset(map(int, np.flatnonzero(~here.there(round, 0.0))))
        assert faults_in(one, here, round).silent == absent
        assert 0 < len(absent) < DEVICES
