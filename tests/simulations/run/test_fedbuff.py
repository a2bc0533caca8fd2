"""The asynchronous loop against another simulation of it, written from the paper (Nguyen et al. 2022, algorithm 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import LinearOracle, opened
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.simulations.run.fedbuff import play_release
from hedgerow.simulations.run.setting import Setting
from hedgerow.simulations.run.trips import trip_of

RATE = 0.05


def setting_of(counts: tuple[int, ...], options: dict[str, float], **changes: Any) -> Setting:
    strategy = {
        "name": "fedbuff",
        "server_learning_rate": 0.7,
        "options": options,
        **changes.pop("strategy", {}),
    }
    job = {
        "rounds": 8,
        "training": {"batch_size": 64, "learning_rate": RATE},
        "strategy": strategy,
        **changes.pop("job", {}),
    }
    one = {
        "jitter": changes.pop("jitter", 0.0),
        "name": "board",
        "examples_per_s": 1.0,
        "latency_s": 0.0,
        "up_mbit_s": 1e9,
        "down_mbit_s": 1e9,
    }
    scenario = tiny_scenario(len(counts), job=job, device_class=[one], **changes)
    return tiny_setting(scenario, counts=counts)


def by_the_paper(
    setting: Setting, takes: np.ndarray, buffer: int, exponent: float, releases: int
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """Return models, times and mean staleness of each release when all devices train all the time.

    ``takes`` are seconds a device. Who has ended waits for the next version, as nobody trains twice on one.
    """
    data, oracle = setting.population.at(1), LinearOracle(RATE)
    model, version = setting.model.astype(np.float64), 0
    models: list[np.ndarray] = []
    times: list[float] = []
    stale: list[float] = []
    flying = {device: (float(takes[device]), 0, model) for device in range(len(takes))}
    waiting: set[int] = set()
    held: list[tuple[int, np.ndarray]] = []
    while len(models) < releases:
        device = min(flying, key=lambda d: (flying[d][0], d))
        ends, began, base = flying.pop(device)
        held.append((version - began, oracle.update(base, data.of(device)[0])))
        waiting.add(device)
        # Whoever began on an older version may begin at once on the newest.
        if began < version:
            flying[device] = (ends + float(takes[device]), version, model)
            waiting.discard(device)
        if len(held) == buffer or not flying:
            mean = sum((1 + age) ** -exponent * delta for age, delta in held) / len(held)
            model, version = model + 0.7 * mean, version + 1
            models.append(model)
            times.append(ends)
            stale.append(float(np.mean([age for age, _ in held])))
            held = []
            for idle in sorted(waiting):
                flying[idle] = (ends + float(takes[idle]), version, model)
            waiting = set()
    return models, times, stale


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
def test_releases_are_those_of_the_papers_algorithm(exponent: float) -> None:
    options = {"buffer_size": 2, "concurrency": 4, "staleness_exponent": exponent}
    setting = setting_of((2, 3, 7, 13), options, jitter=0.1)
    run = opened(setting)
    state = run.begin()
    takes = trip_of(run, 1).total_s  # all different: no two devices end at once
    models, times, stale = by_the_paper(setting, takes, 2, exponent, 8)
    for model, at, behind in zip(models, times, stale, strict=True):
        record = play_release(run, state)
        assert record.simulated_s == pytest.approx(at, abs=1e-4)
        assert record.staleness == pytest.approx(behind)
        assert np.allclose(state.model, model, atol=2e-6)
    assert max(stale) > 0


def test_nobody_begins_twice_on_a_version_and_concurrency_is_never_exceeded() -> None:
    setting = setting_of((2, 3, 4, 5, 6, 7), {"buffer_size": 3, "concurrency": 3, "staleness_exponent": 0.5})
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    state = run.begin()
    for _ in range(8):
        play_release(run, state)
        assert state.flight is not None
        assert len(state.flight.legs) <= 3
        assert set(state.flight.models) == {leg.version for leg in state.flight.legs}
    began = [(task.device, task.round) for batch in engine.batches for task in batch.tasks]
    assert len(began) == len(set(began)) == 24


def test_all_arrivals_of_a_release_are_trained_side_by_side_on_their_own_versions() -> None:
    setting = setting_of((2, 3, 7, 13), {"buffer_size": 3, "concurrency": 4, "staleness_exponent": 1.0})
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    state = run.begin()
    for release in range(5):
        play_release(run, state)
        batch = engine.batches[release]
        assert len(engine.batches) == release + 1
        for task in batch.tasks:
            assert task.weight == pytest.approx(1 / (1 + release - (task.round - 1)))


def test_staleness_does_not_shrink_the_denominator() -> None:
    options = {"buffer_size": 1, "concurrency": 2, "staleness_exponent": 1.0}
    setting = setting_of((1, 4), options, strategy={"weighting": "samples"})
    run = opened(setting)
    state = run.begin()
    oracle, data = LinearOracle(RATE), setting.population.at(1)
    model = setting.model.astype(np.float64)
    stale_base = model.copy()
    for _ in range(3):
        model = model + 0.7 * oracle.update(model, data.of(0)[0])
        play_release(run, state)
    assert np.allclose(state.model, model, atol=1e-6)
    record = play_release(run, state)  # both end at 4 s: who began first lands first
    assert record.staleness == 3.0
    model = model + 0.7 * oracle.update(stale_base, data.of(1)[0]) / 4
    assert np.allclose(state.model, model, atol=1e-6)


def test_who_never_answers_is_given_up_at_the_deadline_and_replaced() -> None:
    setting = setting_of(
        (1, 1, 1),
        {"buffer_size": 2, "concurrency": 2, "staleness_exponent": 0.5},
        faults={"dropout": 0.5},
        job={"deadlines": {"round_s": 50.0}},
    )
    run = opened(setting)
    state = run.begin()
    records = [play_release(run, state) for _ in range(8)]
    assert sum(record.dropped for record in records) > 0
    assert any(record.simulated_s > 50 for record in records)
    assert all(record.bytes_up == 16 * (record.counted) for record in records)


def test_slow_devices_count_though_the_deadline_is_past() -> None:
    setting = setting_of(
        (2, 9),
        {"buffer_size": 2, "concurrency": 2, "staleness_exponent": 0.5},
        job={"deadlines": {"round_s": 3.0}},
    )
    run = opened(setting)
    record = play_release(run, run.begin())
    assert (record.counted, record.dropped) == (2, 0)
    assert record.simulated_s == pytest.approx(9.0, abs=1e-4)


def test_the_same_scenario_flies_the_same_way_twice_and_another_seed_another() -> None:
    options = {"buffer_size": 2, "concurrency": 3, "staleness_exponent": 0.5}
    models = []
    for seed in (7, 7, 8):
        setting = setting_of((2, 3, 4, 5, 6, 7, 8), options, seed=seed)
        run = opened(setting)
        state = run.begin()
        for _ in range(5):
            play_release(run, state)
        models.append(state.model.tobytes())
    assert models[0] == models[1] != models[2]


def test_a_device_charges_no_more_rounds_than_its_plan_has() -> None:
    setting = setting_of(
        (3, 4, 5),
        {"buffer_size": 1, "concurrency": 3, "staleness_exponent": 0.5},
        job={"rounds": 3, "privacy": {"mode": "example", "epsilon": 4.0, "delta": 1e-3}},
        faults={"dropout": 0.5},
    )
    run = opened(setting)
    state = run.begin()
    records = [play_release(run, state) for _ in range(3)]
    assert state.totals.rounds.max() <= 3
    assert all(record.epsilon <= 4.0 for record in records)  # type: ignore[operator]


def test_when_nobody_is_there_time_passes_until_somebody_is() -> None:
    setting = setting_of(
        (1, 1, 1),
        {"buffer_size": 1, "concurrency": 1, "staleness_exponent": 0.5},
        availability={"kind": "random", "rate": 0.02},
        job={"deadlines": {"round_s": 5.0}},
    )
    run = opened(setting)
    record = play_release(run, run.begin())
    assert record.counted == 1
    assert record.simulated_s > 5.0


def test_a_release_has_fewer_updates_when_nobody_is_left_who_could_send_one() -> None:
    setting = setting_of((2, 3), {"buffer_size": 5, "concurrency": 2, "staleness_exponent": 0.5})
    run = opened(setting)
    record = play_release(run, run.begin())
    assert record.counted == 2


def test_updates_weigh_as_many_examples_as_the_job_says() -> None:
    options = {"buffer_size": 2, "concurrency": 2, "staleness_exponent": 0.0}
    setting = setting_of((1, 3), options, strategy={"weighting": "samples"})
    run = opened(setting)
    state = run.begin()
    play_release(run, state)
    oracle, data = LinearOracle(RATE), setting.population.at(1)
    deltas = [oracle.update(setting.model, data.of(device)[0]) for device in (0, 1)]
    expected = setting.model + 0.7 * (deltas[0] + 3 * deltas[1]) / 4
    assert np.allclose(state.model, expected, atol=1e-6)
