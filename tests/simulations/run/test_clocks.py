"""Simulated time and presence, worked out by hand or by closed form: trips, stragglers, deadlines, days and nights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.simulation_play import opened, played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.population.devices import needed_mib
from hedgerow.simulations.run.fedbuff import play_release
from hedgerow.simulations.run.synchronous import play_round
from hedgerow.simulations.run.world import World

BOARD: dict[str, Any] = {
    "name": "board",
    "examples_per_s": 4.0,
    "up_mbit_s": 1.0,
    "down_mbit_s": 2.0,
    "latency_s": 0.25,
    "train_watts": 3.0,
    "radio_watts": 2.0,
    "jitter": 0.0,
}


def world(devices: int, board: dict[str, Any] | None = None, **changes: Any) -> World:
    scenario = tiny_scenario(devices, device_class=[{**BOARD, **(board or {})}], **changes)
    return World(scenario, np.zeros(devices, np.int64))


# Trips

speeds = st.floats(1e-3, 1e6)


@given(
    examples=st.floats(0, 1e6),
    down_bytes=st.integers(0, 10**9),
    up_bytes=st.integers(0, 10**9),
    rate=speeds,
    up=speeds,
    down=speeds,
    latency=st.floats(0, 100),
    train_watts=st.floats(0, 100),
    radio_watts=st.floats(0, 100),
    factor=st.floats(1, 1000),
)
def test_a_trip_is_bits_over_rates_and_examples_over_speed(
    examples: float,
    down_bytes: int,
    up_bytes: int,
    rate: float,
    up: float,
    down: float,
    latency: float,
    train_watts: float,
    radio_watts: float,
    factor: float,
) -> None:
    board = {
        "examples_per_s": rate,
        "up_mbit_s": up,
        "down_mbit_s": down,
        "latency_s": latency,
        "train_watts": train_watts,
        "radio_watts": radio_watts,
    }
    made = world(2, board, faults={"straggler_share": 0.5, "straggler_factor": factor})
    trip = made.trip(np.full(2, examples), down_bytes, up_bytes)
    for device in range(2):
        slow = factor if made.straggler[device] else 1.0
        fetch = slow * (down_bytes * 8 / (down * 1_000_000) + latency)
        send = slow * (up_bytes * 8 / (up * 1_000_000) + latency)
        work = slow * examples / rate
        assert trip.down_s[device] == pytest.approx(fetch)
        assert trip.up_s[device] == pytest.approx(send)
        assert trip.train_s[device] == pytest.approx(work)
        assert trip.total_s[device] == pytest.approx(fetch + work + send)
        assert trip.energy_j[device] == pytest.approx(train_watts * work + radio_watts * (fetch + send))


@given(share=st.floats(0, 1), devices=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_as_many_are_slow_or_hostile_as_the_shares_say(share: float, devices: int, seed: int) -> None:
    faults = {"straggler_share": share, "byzantine": {"kind": "nan", "share": share}}
    made = world(devices, faults=faults, seed=seed)
    assert made.straggler.sum() == made.byzantine.sum() == round(share * devices)
    again = world(devices, faults=faults, seed=seed)
    assert np.array_equal(made.straggler, again.straggler)
    assert np.array_equal(made.byzantine, again.byzantine)


def test_being_slow_has_nothing_to_do_with_being_hostile() -> None:
    made = world(4000, faults={"straggler_share": 0.5, "byzantine": {"kind": "nan", "share": 0.5}})
    both = int((made.straggler & made.byzantine).sum())
    assert abs(both - 1000) < 5 * math.sqrt(4000 / 16)


def test_jitter_spreads_speeds_around_the_classes_own_and_never_stops_a_device() -> None:
    examples = np.full(20_000, 4.0)
    exact = world(20_000).trip(examples, 0, 0).train_s
    assert np.all(exact == 1.0)
    spread = 1.0 / world(20_000, {"jitter": 0.2}).trip(examples, 0, 0).train_s
    assert spread.mean() == pytest.approx(1.0, abs=0.01)
    assert spread.std() == pytest.approx(0.2, rel=0.03)
    wild = 1.0 / world(20_000, {"jitter": 5.0}).trip(examples, 0, 0).train_s
    assert wild.min() == pytest.approx(0.1)
    assert np.all(np.isfinite(wild))


def test_a_board_with_just_enough_memory_takes_part_and_one_with_less_does_not() -> None:
    training = tiny_scenario(1).job.training
    needed = needed_mib(4, training)
    assert world(1, {"memory_mib": needed}).fits(4).all()
    assert not world(1, {"memory_mib": needed}).fits(5).any()
    scenario = tiny_scenario(2, device_class=[{**BOARD, "memory_mib": needed / 2}])
    with pytest.raises(ConfigError, match=r"scenario tiny: device_class: no class has the memory_mib"):
        opened(tiny_setting(scenario, counts=(1, 1)))


# Presence


def test_who_is_always_there_is_there() -> None:
    assert world(50, availability={"kind": "always", "rate": 0.0}).there(3, 1e9).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_random_presence_has_its_rate_and_is_drawn_each_round(rate: float) -> None:
    made = world(20_000, availability={"kind": "random", "rate": rate})
    one, two = made.there(1, 0.0), made.there(2, 0.0)
    allowed = 5 * math.sqrt(rate * (1 - rate) / 20_000)
    assert abs(one.mean() - rate) <= allowed
    assert abs((one & two).mean() - rate**2) <= 5 * math.sqrt(max(rate**2 * (1 - rate**2), 0) / 20_000)
    assert np.array_equal(one, made.there(1, 5e8))  # the time of day plays no part
    assert np.array_equal(two, made.there(2, 0.0))


def test_at_any_hour_as_many_are_there_as_on_the_mean_of_night_and_day() -> None:
    made = world(20_000, availability={"kind": "diurnal", "low": 0.1, "rate": 0.7, "period_s": 100.0})
    for number, at in enumerate((0.0, 13.0, 50.0, 99.0), start=1):
        assert made.there(number, at).mean() == pytest.approx(0.4, abs=5 * math.sqrt(0.24 / 20_000))


@pytest.mark.parametrize(
    ("apart", "together"),
    # With p = (1 + cos u) / 2 and u uniform, E[p(u) p(u + v)] = 1/4 + cos(v) / 8.
    [(0.0, 0.375), (25.0, 0.25), (50.0, 0.125), (100.0, 0.375), (250.0, 0.125)],
)
def test_who_is_there_by_day_is_away_by_night(apart: float, together: float) -> None:
    made = world(40_000, availability={"kind": "diurnal", "low": 0.0, "rate": 1.0, "period_s": 100.0})
    both = made.there(1, 1000.0) & made.there(2, 1000.0 + apart)
    assert both.mean() == pytest.approx(together, abs=5 * math.sqrt(together * (1 - together) / 40_000))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_devices_fail_as_often_as_the_scenario_says(share: float) -> None:
    made = world(20_000, faults={"dropout": share})
    first = made.dropped(1)
    assert first.mean() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 20_000) + 1e-12)
    assert (first & made.dropped(2)).mean() == pytest.approx(share**2, abs=0.02)


def test_failing_has_nothing_to_do_with_being_there() -> None:
    made = world(20_000, faults={"dropout": 0.5}, availability={"kind": "random", "rate": 0.5})
    assert (made.dropped(1) & made.there(1, 0.0)).mean() == pytest.approx(0.25, abs=0.02)


# Rounds in step: 16 bytes each way, 8 of a second apart from the latency


def wire_s(rate_mbit: float) -> float:
    return 16 * 8 / (rate_mbit * 1e6) + 0.25


TRAVEL_S = wire_s(1.0) + wire_s(2.0)


def setting_of(counts: tuple[int, ...], **changes: Any) -> Any:
    job = {"training": {"batch_size": 64, "learning_rate": 0.05}, **changes.pop("job", {})}
    return tiny_setting(tiny_scenario(len(counts), job=job, device_class=[BOARD], **changes), counts=counts)


def test_a_round_takes_as_long_as_its_slowest() -> None:
    result = played(setting_of((2, 4, 8)))
    assert result.rounds[0].simulated_s == pytest.approx(TRAVEL_S + 8 / 4)
    assert [r.simulated_s for r in result.rounds] == pytest.approx([n * (TRAVEL_S + 2) for n in (1, 2, 3)])


@pytest.mark.parametrize(("deadline_s", "late"), [(TRAVEL_S + 2, 0), (TRAVEL_S + 2 - 1e-9, 1), (TRAVEL_S, 3)])
def test_a_deadline_is_missed_only_by_who_takes_longer(deadline_s: float, late: int) -> None:
    run = opened(setting_of((2, 4, 8), job={"deadlines": {"round_s": deadline_s}}))
    record = play_round(run, run.begin())
    assert (record.counted, record.dropped) == (3 - late, late)
    assert record.simulated_s == pytest.approx(deadline_s)
    assert (f"{late} late" in record.events) == bool(late)


def test_epochs_and_the_newest_samples_decide_how_long_training_takes() -> None:
    training = {"batch_size": 64, "learning_rate": 0.05, "local_epochs": 3, "max_samples": 100}
    run = opened(setting_of((120, 50), job={"training": training}))
    state = run.begin()
    play_round(run, state)
    assert state.totals.train_s == pytest.approx([100 * 3 / 4, 50 * 3 / 4])


def test_a_round_waits_for_the_deadline_whenever_somebody_is_missed() -> None:
    result = played(
        setting_of(
            (2, 4, 8),
            job={"rounds": 12, "deadlines": {"round_s": 50.0}},
            faults={"dropout": 0.2},
            availability={"kind": "random", "rate": 0.9},
        )
    )
    before = 0.0
    for record in result.rounds:
        took = record.simulated_s - before
        before = record.simulated_s
        assert took == pytest.approx(50.0 if record.dropped else TRAVEL_S + 2)
    assert 0 < sum(record.dropped > 0 for record in result.rounds) < 12


def test_a_round_for_which_no_coin_fell_takes_no_time() -> None:
    privacy = {"mode": "central-poisson", "noise_multiplier": 3.0, "delta": 1e-3}
    job = {"rounds": 8, "privacy": privacy, "cohort": {"rule": "poisson", "rate": 0.2}}
    run = opened(setting_of((2, 2, 2), job=job))
    state = run.begin()
    times = [0.0]
    records = []
    for _ in range(8):
        records.append(play_round(run, state))
        times.append(state.simulated_s)
    empty = [record.drawn == 0 for record in records]
    assert any(empty)
    assert [gap == 0.0 for gap in np.diff(times)] == empty


def test_joules_of_late_and_failed_devices_are_spent_too() -> None:
    run = opened(setting_of((2, 4), faults={"dropout": 1.0}))
    record = play_round(run, run.begin())
    assert record.energy_j == pytest.approx(3.0 * (2 + 4) / 4 + 2 * 2.0 * TRAVEL_S)


def test_the_sum_over_devices_is_the_sum_over_rounds() -> None:
    setting = setting_of(
        (2, 4, 8, 3),
        job={"rounds": 10, "cohort": {"rule": "fixed", "size": 3}},
        faults={"dropout": 0.3, "straggler_share": 0.25},
        availability={"kind": "diurnal", "low": 0.2, "rate": 0.9, "period_s": 40.0},
    )
    result = played(setting)
    for name in ("bytes_up", "bytes_down"):
        assert sum(getattr(one, name) for one in result.device_records) == sum(
            getattr(record, name) for record in result.rounds
        )
    assert all(record.counted + record.dropped == record.drawn == 3 for record in result.rounds)
    slow = World(setting.scenario, np.zeros(4, np.int64)).straggler
    for one, count in zip(result.device_records, (2, 4, 8, 3), strict=True):
        each = count / 4 * (10.0 if slow[one.device] else 1.0)
        assert one.train_s == pytest.approx(one.rounds * each)


# Asynchronous rounds


def test_a_straggler_in_flight_does_not_hold_up_the_others() -> None:
    """Two at a time, a release for each arrival: the fast ones go on releasing while the slow one trains."""
    strategy = {"name": "fedbuff", "options": {"buffer_size": 1, "concurrency": 2}}
    setting = setting_of(
        (4, 4, 4),
        job={"rounds": 8, "strategy": strategy},
        faults={"straggler_share": 1 / 3, "straggler_factor": 5.0},
    )
    run = opened(setting)
    state = run.begin()
    one = TRAVEL_S + 1.0
    ends = [play_release(run, state).simulated_s for _ in range(8)]
    slow = int(np.flatnonzero(run.world.straggler)[0])
    assert state.totals.rounds[slow] >= 1
    gaps = np.diff([0.0, *ends])
    assert gaps.max() <= one + 1e-9
    assert all(min(abs(end % one), one - end % one) < 1e-6 for end in ends)


def test_arrivals_of_an_asynchronous_run_never_go_back_in_time() -> None:
    strategy = {"name": "fedbuff", "options": {"buffer_size": 2, "concurrency": 4}}
    setting = setting_of(
        (1, 2, 3, 4, 5, 6),
        job={"rounds": 15, "strategy": strategy, "deadlines": {"round_s": 5.0}},
        faults={"dropout": 0.3, "straggler_share": 0.5, "straggler_factor": 4.0},
        availability={"kind": "random", "rate": 0.6},
    )
    result = played(setting)
    times = [record.simulated_s for record in result.rounds]
    assert times == sorted(times)
    assert sum(record.counted for record in result.rounds) == sum(
        record.bytes_up // 16 for record in result.rounds
    )
    assert sum(record.drawn for record in result.rounds) == sum(one.rounds for one in result.device_records)
