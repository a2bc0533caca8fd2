"""Invented devices: draws that repeat, shares that hold, cohorts drawn as the server draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.simulation_setting import tiny_scenario

from hedgerow.server.rounds.plan import draw_cohort
from hedgerow.shared.job import CohortSpec
from hedgerow.shared.privacy.noise import SeededStream
from hedgerow.simulations.run.cohort import draw, generator
from hedgerow.simulations.run.world import World


def world(devices: int = 1000, **changes: Any) -> World:
    scenario = tiny_scenario(devices, **changes)
    return World(scenario, np.arange(devices) % len(scenario.device_class))


def test_everybody_is_drawn_by_the_rule_all() -> None:
    assert draw(CohortSpec(), 5, 1, 1).tolist() == [0, 1, 2, 3, 4]
    assert draw(CohortSpec("fixed", 9), 5, 1, 1).tolist() == [0, 1, 2, 3, 4]


def test_a_fixed_cohort_is_what_the_server_draws_with_the_same_generator() -> None:
    spec = CohortSpec("fixed", 7)
    for round in range(1, 20):
        names = [f"{device:04d}" for device in range(100)]
        rng = generator(SeededStream.of(3, "cohort", round))
        assert [int(name) for name in draw_cohort(spec, names, rng)] == draw(spec, 100, 3, round).tolist()


def test_fixed_cohorts_have_their_size_and_favour_nobody() -> None:
    counts = np.zeros(20)
    for round in range(1, 2001):
        drawn = draw(CohortSpec("fixed", 5), 20, 3, round)
        assert drawn.size == 5 == np.unique(drawn).size
        counts[drawn] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_poisson_throws_a_coin_for_each_device() -> None:
    sizes = [draw(CohortSpec("poisson", rate=0.2), 500, 3, round).size for round in range(1, 301)]
    assert np.mean(sizes) == pytest.approx(100, abs=4 * np.sqrt(500 * 0.16 / 300))
    assert np.var(sizes) == pytest.approx(80, rel=0.35)


def test_draws_differ_by_seed_and_round_and_repeat_otherwise() -> None:
    spec = CohortSpec("fixed", 10)
    first = draw(spec, 100, 3, 1).tolist()
    assert first == draw(spec, 100, 3, 1).tolist()
    assert first != draw(spec, 100, 3, 2).tolist()
    assert first != draw(spec, 100, 4, 1).tolist()


def test_random_availability_has_its_rate() -> None:
    one = world(availability={"kind": "random", "rate": 0.3})
    there = np.mean([one.there(round, 0.0).mean() for round in range(1, 21)])
    assert there == pytest.approx(0.3, abs=0.02)
    assert np.array_equal(one.there(4, 0.0), one.there(4, 9e9))
    assert not np.array_equal(one.there(4, 0.0), one.there(5, 0.0))


def test_diurnal_availability_swings_with_each_devices_own_night() -> None:
    one = world(4000, availability={"kind": "diurnal", "rate": 0.9, "low": 0.1, "period_s": 100.0})
    assert one.there(1, 0.0).mean() == pytest.approx(0.5, abs=0.04)  # nights are spread over the clock
    early = np.mean([one.there(round, 0.0) for round in range(200)], axis=0)
    late = np.mean([one.there(round, 50.0) for round in range(200)], axis=0)
    same = np.mean([one.there(round, 100.0) for round in range(200)], axis=0)
    assert np.corrcoef(early, late)[0, 1] < -0.8
    assert np.array_equal(early, same)
    assert early.min() < 0.2 and early.max() > 0.8


def test_always_is_everybody() -> None:
    assert world().there(1, 0.0).all()


def test_stragglers_and_liars_are_a_fixed_share_and_not_the_same_devices() -> None:
    one = world(faults={"straggler_share": 0.3, "byzantine": {"kind": "nan", "share": 0.2}})
    assert (one.straggler.sum(), one.byzantine.sum()) == (300, 200)
    assert 30 < (one.straggler & one.byzantine).sum() < 90
    assert not world().byzantine.any()


def test_dropout_has_its_rate_and_changes_by_round() -> None:
    one = world(faults={"dropout": 0.25})
    assert np.mean([one.dropped(round).mean() for round in range(20)]) == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(one.dropped(1), one.dropped(2))


def test_speeds_spread_by_the_jitter_of_the_class() -> None:
    classes = [{"name": "a", "examples_per_s": 10.0, "jitter": 0.2}, {"name": "b", "jitter": 0.0}]
    trip = world(device_class=classes).trip(np.full(1000, 10.0), 0, 0)
    assert np.std(1 / trip.train_s[::2]) == pytest.approx(0.2, rel=0.15)
    assert np.allclose(trip.train_s[1::2], 10 / 200)
    assert (trip.train_s > 0).all()


def test_memory_must_hold_three_copies_and_what_the_optimizer_keeps() -> None:
    just = {"name": "a", "memory_mib": 12.0}
    n = 1024 * 1024
    assert world(device_class=[just]).fits(n).all()
    assert not world(device_class=[just]).fits(n + 1).any()
    adam = {"training": {"optimizer": "adam"}}
    assert not world(device_class=[just], job=adam).fits(n).any()
    assert world(device_class=[{**just, "memory_mib": 20.0}], job=adam).fits(n).all()
