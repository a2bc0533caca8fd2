"""Rounds in step: who counts, what is averaged, how long it takes, against cases worked out by hand."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import LinearOracle, opened
from tests.support.simulation_setting import tiny_scenario, tiny_setting
from tests.support.tiny_recipe import RECIPE

from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import TrainingSet
from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.strategies.flower_strategy import FlowerAggregator
from hedgerow.shared.errors import ContentError
from hedgerow.shared.packing import packed_bytes
from hedgerow.simulations.bench.federation import federate
from hedgerow.simulations.run.synchronous import play_round

WHOLE = {"batch_size": 64, "learning_rate": 0.05}


def test_fedavg_gives_the_model_that_a_fleet_in_one_process_gives() -> None:
    setting = tiny_setting(tiny_scenario(4, job={"training": WHOLE}))
    run = opened(setting)
    state = run.begin()
    for _ in range(3):
        play_round(run, state)
    data = setting.population.at(1)
    sets = [TrainingSet(*data.of(device)) for device in range(4)]
    assert np.allclose(state.model, federate(RECIPE, setting.scenario.job, sets).model, atol=1e-6)


def test_updates_weigh_as_many_examples_as_the_job_says() -> None:
    job = {"training": WHOLE, "strategy": {"weighting": "samples", "server_learning_rate": 0.5}}
    setting = tiny_setting(tiny_scenario(3, job=job), counts=(1, 4, 5))
    run = opened(setting)
    state = run.begin()
    play_round(run, state)
    oracle, data = LinearOracle(0.05), setting.population.at(1)
    updates = [oracle.update(setting.model, data.of(device)[0]) for device in range(3)]
    expected = setting.model + 0.5 * (updates[0] + 4 * updates[1] + 5 * updates[2]) / 10
    assert np.allclose(state.model, expected, atol=1e-6)


def test_batches_are_ordered_by_job_seed_round_and_device() -> None:
    setting = tiny_setting(tiny_scenario(1), counts=(7,))
    run = opened(setting)
    state = run.begin()
    play_round(run, state)
    trainer = PlainTrainer(RECIPE, RECIPE.build({}), TrainingSet(*setting.population.at(1).of(0)))
    delta = trainer.train(setting.model, setting.scenario.job.training, (5, 1, 0)).delta
    assert np.array_equal(state.model, setting.model + delta)


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
def test_bytes_are_those_of_packed_updates_up_and_the_model_down(packing: str) -> None:
    setting = tiny_setting(tiny_scenario(4, job={"packing": packing}))
    run = opened(setting)
    record = play_round(run, run.begin())
    assert record.bytes_up == 4 * packed_bytes(4, packing)  # type: ignore[arg-type]
    assert record.bytes_down == 4 * 16


def classes() -> list[dict[str, object]]:
    fast = {"name": "fast", "examples_per_s": 10.0, "up_mbit_s": 1.0, "down_mbit_s": 2.0, "jitter": 0.0}
    return [
        {**fast, "latency_s": 0.1, "train_watts": 3.0, "radio_watts": 2.0},
        {
            **fast,
            "name": "slow",
            "examples_per_s": 2.0,
            "latency_s": 0.2,
            "train_watts": 1.0,
            "radio_watts": 0.5,
        },
    ]


def test_simulated_time_and_energy_follow_from_the_device_classes() -> None:
    job = {"training": {**WHOLE, "local_epochs": 2}}
    setting = tiny_setting(tiny_scenario(2, job=job, device_class=classes()), counts=(3, 5), classes=(0, 1))
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    down, up = (128 / 2e6 + 0.1, 128 / 2e6 + 0.2), (128 / 1e6 + 0.1, 128 / 1e6 + 0.2)
    trained = (3 * 2 / 10, 5 * 2 / 2)
    assert record.simulated_s == pytest.approx(down[1] + trained[1] + up[1])
    joules = 3.0 * trained[0] + 2.0 * (down[0] + up[0]) + 1.0 * trained[1] + 0.5 * (down[1] + up[1])
    assert record.energy_j == pytest.approx(joules)
    assert state.totals.train_s == pytest.approx(trained)
    assert play_round(run, state).simulated_s == pytest.approx(2 * record.simulated_s)


def test_who_is_later_than_the_deadline_counts_for_nothing_and_is_told() -> None:
    job = {"training": WHOLE, "deadlines": {"round_s": 2.0}}
    setting = tiny_setting(tiny_scenario(2, job=job, device_class=classes()), counts=(3, 5), classes=(0, 1))
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    assert (record.drawn, record.counted, record.dropped) == (2, 1, 1)
    assert record.events == ("1 late",)
    assert record.simulated_s == 2.0
    assert record.bytes_up == 2 * 16  # it came, too late
    alone = LinearOracle(0.05).update(setting.model, setting.population.at(1).of(0)[0])
    assert np.allclose(state.model, setting.model + alone, atol=1e-6)


def test_a_straggler_takes_as_many_times_as_long_as_the_scenario_says() -> None:
    one = [classes()[0]]
    plain = opened(tiny_setting(tiny_scenario(2, job={"training": WHOLE}, device_class=one), counts=(3, 3)))
    slow = opened(
        tiny_setting(
            tiny_scenario(
                2,
                job={"training": WHOLE},
                device_class=one,
                faults={"straggler_share": 0.5, "straggler_factor": 7.0},
            ),
            counts=(3, 3),
        )
    )
    assert play_round(slow, slow.begin()).simulated_s == pytest.approx(
        7 * play_round(plain, plain.begin()).simulated_s
    )


def test_a_device_that_drops_out_gets_the_model_and_sends_nothing() -> None:
    setting = tiny_setting(tiny_scenario(4, job={"training": WHOLE}, faults={"dropout": 1.0}))
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    assert (record.counted, record.dropped, record.bytes_up, record.bytes_down) == (0, 4, 0, 64)
    assert "4 never answered" in record.events
    assert "not released: 0 updates, quorum 1" in record.events
    assert np.array_equal(state.model, setting.model)
    assert record.simulated_s == setting.scenario.job.deadlines.round_s


def test_a_round_below_the_quorum_releases_nothing_without_privacy() -> None:
    job = {"cohort": {"quorum": 4}, "deadlines": {"round_s": 2.0}}
    setting = tiny_setting(
        tiny_scenario(4, job=job, device_class=classes()), counts=(3, 5, 3, 3), classes=(0, 1, 0, 0)
    )
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    assert record.counted == 3
    assert "not released: 3 updates, quorum 4" in record.events
    assert np.array_equal(state.model, setting.model)


def test_devices_without_the_memory_or_without_examples_take_no_part() -> None:
    small = {"name": "small", "memory_mib": 1e-6}
    setting = tiny_setting(
        tiny_scenario(3, device_class=[{"name": "big"}, small]), counts=(3, 5, 0), classes=(0, 1, 0)
    )
    run = opened(setting)
    record = play_round(run, run.begin())
    assert (record.drawn, record.counted) == (3, 1)
    assert record.events == ("1 without the memory", "1 declined")


def test_absent_devices_are_drawn_and_do_not_answer() -> None:
    setting = tiny_setting(tiny_scenario(4, availability={"kind": "random", "rate": 0.5}))
    run = opened(setting)
    state = run.begin()
    counted = [play_round(run, state).counted for _ in range(40)]
    assert 60 < sum(counted) < 100
    assert all(record.drawn == 4 for record in state.records)


def test_rejected_updates_are_counted_by_reason_and_add_nothing() -> None:
    faults = {"byzantine": {"kind": "nan", "share": 0.25}}
    setting = tiny_setting(tiny_scenario(4, job={"training": WHOLE}, faults=faults))
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    assert record.rejected == {"non-finite": 1}
    honest = [d for d in range(4) if not run.world.byzantine[d]]
    oracle, data = LinearOracle(0.05), setting.population.at(1)
    mean = np.mean([oracle.update(setting.model, data.of(d)[0]) for d in honest], axis=0)
    assert np.allclose(state.model, setting.model + mean, atol=1e-6)


def test_byzantine_devices_attack_from_their_round_on() -> None:
    faults = {"byzantine": {"kind": "sign-flip", "share": 0.5, "scale": 3.0, "from_round": 2}}
    setting = tiny_setting(tiny_scenario(4, faults=faults))
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    state = run.begin()
    play_round(run, state)
    play_round(run, state)
    assert [task.attack for task in engine.batches[0].tasks] == [None] * 4
    attacked = [task.device for task in engine.batches[1].tasks if task.attack is not None]
    assert attacked == np.flatnonzero(run.world.byzantine).tolist()
    assert len(attacked) == 2


def test_loss_is_weighted_as_the_updates_are() -> None:
    setting = tiny_setting(tiny_scenario(2, job={"strategy": {"weighting": "samples"}}), counts=(2, 6))
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    record = play_round(run, run.begin())
    answer = engine.train(engine.batches[0])
    losses = [outcome.loss for outcome in answer.outcomes]
    assert record.loss == pytest.approx((2 * losses[0] + 6 * losses[1]) / 8)  # type: ignore[operator]


def test_training_that_falls_apart_everywhere_names_the_learning_rate_and_the_round() -> None:
    job = {"training": {"batch_size": 2, "learning_rate": 1e30, "local_epochs": 5}}
    run = opened(tiny_setting(tiny_scenario(4, job=job)))
    with pytest.raises(
        ContentError, match=r"round 1: none of 4 honest devices.*job\.training\.learning_rate = 1e\+30"
    ):
        play_round(run, run.begin())


@pytest.mark.parametrize("name", ["FedMedian", "FedAvgM"])
def test_a_strategy_of_flowers_is_given_every_update_by_the_servers_own_adapter(name: str) -> None:
    setting = tiny_setting(tiny_scenario(4, job={"training": WHOLE, "strategy": {"name": f"flower:{name}"}}))
    run = opened(setting)
    state = run.begin()
    aggregator = FlowerAggregator(name, {}, 4, "float32")
    model, kept = setting.model, b""
    for round in (1, 2):
        play_round(run, state)
        total = aggregator.open(round, kept)
        for device in range(4):
            trainer = PlainTrainer(
                RECIPE, RECIPE.build({}), TrainingSet(*setting.population.at(1).of(device))
            )
            delta = trainer.train(model, setting.scenario.job.training, (5, round, device)).delta
            total.add(Update(str(device), [memoryview(delta.tobytes())], 1.0, None))
        model, kept = total.release(model)
        assert np.array_equal(state.model, model)


def test_the_server_side_algorithms_are_the_servers_and_keep_their_state() -> None:
    from hedgerow.server.aggregation.algorithm import algorithm_for

    setting = tiny_setting(tiny_scenario(4, job={"training": WHOLE, "strategy": {"name": "fedadam"}}))
    run = opened(setting)
    state = run.begin()
    algorithm = algorithm_for(setting.scenario.job.strategy)
    model, kept = setting.model, algorithm.init(4)
    for _ in range(3):
        play_round(run, state)
        data = setting.population.at(1)
        oracle = LinearOracle(0.05)
        total = np.sum([oracle.update(model, data.of(d)[0]) for d in range(4)], axis=0)
        kept, model = algorithm.apply(kept, model, total, 4.0)
        assert np.allclose(state.model, model, atol=1e-5)
    assert state.rule != b""


def test_personal_layers_never_move_on_the_server_nor_travel() -> None:
    setting = tiny_setting(tiny_scenario(4, job={"training": WHOLE, "strategy": {"name": "fedper"}}))
    setting = setting._replace(personal=1)
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    assert state.model[3] == setting.model[3]
    assert not np.array_equal(state.model[:3], setting.model[:3])
    assert (record.bytes_up, record.bytes_down) == (4 * 12, 4 * 12)


def test_records_hold_scores_over_devices_and_cohorts_where_they_are_due() -> None:
    evaluation = {"every": 2, "per_device": True, "cohorts": "group"}
    setting = tiny_setting(tiny_scenario(4, evaluation=evaluation), tests=3)
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    state = run.begin()
    first, second, third = (play_round(run, state) for _ in range(3))
    assert first.scores == {} and first.device_mean is None
    for record in (second, third):  # every second, and the last
        assert record.scores["error"] > 0
        assert set(record.cohorts) == {"even", "odd"}
    losses = engine.score_devices(state.model, range(4), 3).loss
    assert third.device_mean == pytest.approx(losses.mean())
    assert third.device_quantiles == pytest.approx(tuple(np.quantile(losses, (0.1, 0.5, 0.9))))
    assert third.cohorts["odd"] == pytest.approx(losses[[1, 3]].mean())


def test_a_record_is_plain_json() -> None:
    run = opened(tiny_setting())
    record = play_round(run, run.begin())
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record
