"""The lean engine as the loop sees it, held to a loop over the device's own trainer."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from tests.support.simulation_lean import (
    DIGITS,
    batch,
    copied,
    digits_population,
    flat,
    make_scenario,
    plain_updates,
    tasks,
    tiny_population,
)
from tests.support.tiny_recipe import RECIPE as TINY

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import PublicSet
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.packing import pack, unpack
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Attack, Batch, Task, Vector
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.population.values import FlatData, Ints, Phase, Population
from hedgerow.simulations.scenario.spec import Scenario

COUNTS = (6, 11, 0, 3, 9, 1, 14, 5)
WITH_DATA = [0, 1, 3, 4, 5, 6, 7]
TINY_MODEL = np.array([0.3, -0.2, 0.1, 0.05], np.float32)


def tiny_engine(workers: int = 0, population: Population | None = None, **changes: object) -> LeanEngine:
    population = population or tiny_population(COUNTS)
    scenario = make_scenario("tiny", population.devices, **changes)
    engine = LeanEngine(scenario, TINY, population, workers=workers)
    engine.open()
    return engine


def digits_engine(
    scenario: Scenario, population: Population, workers: int = 0, kernel: str = "explicit:1"
) -> LeanEngine:
    engine = LeanEngine(scenario, DIGITS, population, workers=workers, choices={"kernel": kernel})
    engine.open()
    return engine


def tiny_updates(devices: list[int], round: int = 1, population: Population | None = None) -> list[Vector]:
    population = population or tiny_population(COUNTS)
    return plain_updates(TINY, make_scenario("tiny", 8), population, TINY_MODEL, round, devices)


@pytest.mark.parametrize(
    ("kernel", "workers"), [("reference:1", 2), ("explicit:1", 0), ("explicit:1", 2), ("stacked:3", 2)]
)
def test_two_rounds_are_those_of_a_plain_loop(kernel: str, workers: int) -> None:
    population = digits_population(COUNTS)
    scenario = make_scenario("digits-cnn", 8)
    model = initial_model(DIGITS, DIGITS.check({}), 1)
    expected = model.copy()
    with digits_engine(scenario, population, workers, kernel) as engine:
        for round in (1, 2):
            given = [Task(d, round, weight=float(COUNTS[d])) for d in range(8)]
            answer = engine.train(batch(model, given))
            model = (model + answer.total / answer.weight).astype(np.float32)
            updates = plain_updates(DIGITS, scenario, population, expected, round, WITH_DATA)
            weights = np.array([COUNTS[d] for d in WITH_DATA], np.float64)
            expected = (expected + np.average(updates, axis=0, weights=weights)).astype(np.float32)
    assert np.abs(model - expected).max() < 1e-5
    assert np.abs(model - initial_model(DIGITS, DIGITS.check({}), 1)).max() > 1e-3


@pytest.mark.parametrize(("kernel", "packing"), [("explicit:1", "int8"), ("stacked:3", "float32")])
def test_the_number_of_workers_does_not_show(kernel: str, packing: str) -> None:
    population = digits_population(COUNTS)
    model = initial_model(DIGITS, DIGITS.check({}), 1)
    given = [Task(d, 3, weight=1.0 + d) for d in range(8)]
    answers: list[Answer] = []
    for workers, order in ((0, given), (1, given), (2, given[::-1]), (3, given)):
        scenario = make_scenario("digits-cnn", 8, packing=packing)
        with digits_engine(scenario, population, workers, kernel) as engine:
            answers.append(engine.train(batch(model, order)))
    for other in answers[1:]:
        np.testing.assert_array_equal(answers[0].total, other.total)
    assert [o.device for o in answers[2].outcomes] == [*range(8)][::-1]


def test_outcomes_say_what_became_of_each_task() -> None:
    with tiny_engine(2) as engine:
        answer = engine.train(batch(TINY_MODEL, tasks(range(8), weight=2.0)))
    for device, outcome in enumerate(answer.outcomes):
        assert (outcome.device, outcome.n_samples) == (device, COUNTS[device])
    trained = answer.outcomes[1]
    assert trained.rejected is None
    assert trained.n_bytes == 16
    assert trained.loss is not None
    assert trained.loss > 0
    assert trained.train_s > 0
    assert trained.norm_l2 == pytest.approx(np.linalg.norm(tiny_updates([1])[0]), rel=1e-5)
    assert (answer.weight, answer.count) == (14.0, 7)


def test_a_device_without_examples_declines_as_on_a_fleet() -> None:
    with tiny_engine() as engine:
        answer = engine.train(batch(TINY_MODEL, tasks([2])))
    assert answer.outcomes[0].rejected == "declined-no-samples"
    assert (answer.weight, answer.count) == (0.0, 0)
    np.testing.assert_array_equal(answer.total, np.zeros(4))


def test_each_task_trains_from_its_own_version_of_the_model() -> None:
    other = TINY_MODEL + 1
    given = [Task(0, 1, version=1), Task(1, 1, version=0)]
    with tiny_engine(2) as engine:
        answer = engine.train(Batch([TINY_MODEL, other], given))
    scenario, population = make_scenario("tiny", 8), tiny_population(COUNTS)
    expected = plain_updates(TINY, scenario, population, other, 1, [0])[0] + tiny_updates([1])[0]
    np.testing.assert_allclose(answer.total, expected, rtol=5e-6)


def test_single_updates_come_back_by_device_where_wanted() -> None:
    population = tiny_population(COUNTS)
    with tiny_engine(2, population) as engine:
        answer = copied(engine.train(batch(TINY_MODEL, tasks(range(8)), want="each")))
        again = engine.train(batch(TINY_MODEL + 1, tasks(range(8)), want="each"))
    assert sorted(answer.updates) == WITH_DATA
    for device, expected in zip(WITH_DATA, tiny_updates(WITH_DATA), strict=True):
        np.testing.assert_allclose(answer.updates[device], expected, rtol=1e-6)
    np.testing.assert_allclose(sum(answer.updates.values()), answer.total, rtol=1e-6)
    assert not np.allclose(again.updates[0], answer.updates[0])


def test_only_the_sum_comes_back_otherwise() -> None:
    with tiny_engine() as engine:
        assert engine.train(batch(TINY_MODEL, tasks(range(8)))).updates == {}


def test_byzantine_updates_reach_the_sum_and_nan_does_not() -> None:
    attacks = {0: Attack("sign-flip", 2.0), 1: Attack("scale", 5.0), 3: Attack("nan")}
    given = [Task(d, 1, attack=attacks.get(d)) for d in (0, 1, 3, 4)]
    with tiny_engine(2) as engine:
        answer = engine.train(batch(TINY_MODEL, given))
    zero, one, four = tiny_updates([0, 1, 4])
    np.testing.assert_allclose(answer.total, -2 * zero + 5 * one + four, rtol=1e-5)
    assert [o.rejected for o in answer.outcomes] == [None, None, "non-finite", None]
    assert answer.count == 3


def test_label_flip_trains_on_the_opposite_class() -> None:
    population = digits_population(COUNTS)
    data = population.phases[0].data
    assert data.y is not None
    flipped = flat(COUNTS, data.x, 9 - data.y)
    scenario = make_scenario("digits-cnn", 8)
    model = initial_model(DIGITS, DIGITS.check({}), 1)
    with digits_engine(scenario, population) as engine:
        answer = engine.train(batch(model, tasks([1], attack=Attack("label-flip"))))
    opposite = Population((Phase(1, flipped),), *_rest(population))
    expected = plain_updates(DIGITS, scenario, opposite, model, 1, [1])[0]
    np.testing.assert_allclose(answer.total, expected, atol=1e-7)


def test_examples_are_those_of_the_round_and_the_newest() -> None:
    first = tiny_population(COUNTS)
    later = tiny_population(COUNTS, seed=9).phases[0].data
    population = Population((first.phases[0], Phase(4, later)), *_rest(first))
    # In one batch, the order of examples, keyed by the device's number, plays no part.
    training = msgspec.structs.replace(make_scenario("tiny", 8).job.training, max_samples=5, batch_size=5)
    with tiny_engine(0, population, training=training) as engine:
        answer = engine.train(batch(TINY_MODEL, tasks([6], round=4)))
    newest = Population((Phase(1, flat([5], later.of(6)[0][-5:], None)),), *_rest(first))
    scenario = make_scenario("tiny", 8, training=training)
    expected = plain_updates(TINY, scenario, newest, TINY_MODEL, 4, [0])[0]
    np.testing.assert_allclose(answer.total, expected, rtol=1e-5)
    assert answer.outcomes[0].n_samples == 5


def test_int8_is_rounded_as_the_devices_own_draw_says() -> None:
    with tiny_engine(0, packing="int8") as engine:
        answer = engine.train(batch(TINY_MODEL, tasks([1], round=2)))
    update = tiny_updates([1], round=2)[0]
    expected = unpack(pack(update, "int8", np.random.default_rng((11, 2, 1))), 4, "int8")
    np.testing.assert_allclose(answer.total, expected, rtol=1e-6)
    assert answer.outcomes[0].n_bytes == 8


def test_clipped_updates_have_at_most_the_bound() -> None:
    with tiny_engine() as engine:
        answer = engine.train(batch(TINY_MODEL, tasks([1], clip_norm_l2=0.001)))
    assert 0.00099 < np.linalg.norm(answer.total) <= 0.001
    assert answer.outcomes[0].norm_l2 > 0.01


def test_private_training_says_no_loss_and_repeats_itself() -> None:
    plan = StepPlan(sampling_rate=0.4, noise_multiplier=1.0, clip_norm_l2=1.0, steps=3)
    given = tasks(range(2), private=plan)
    totals = []
    for workers in (0, 2):
        with tiny_engine(workers) as engine:
            answer = engine.train(batch(TINY_MODEL, given))
            totals.append(answer.total)
            assert [o.loss for o in answer.outcomes] == [None, None]
    np.testing.assert_array_equal(totals[0], totals[1])
    assert np.abs(totals[0]).max() > 0


def test_scores_on_the_held_out_set_are_the_recipes() -> None:
    population = digits_population(COUNTS)
    model = initial_model(DIGITS, DIGITS.check({}), 1)
    module = DIGITS.build(DIGITS.check({}))
    torch.nn.utils.vector_to_parameters(torch.from_numpy(model), module.parameters())
    with torch.no_grad():
        expected = DIGITS.score(lambda x: module(torch.from_numpy(x)).numpy(), population.held_out, {})
    with digits_engine(make_scenario("digits-cnn", 8), population, 2) as engine:
        assert engine.score(model) == pytest.approx(expected)


def test_large_held_out_sets_are_spread_and_give_the_same_bits() -> None:
    population = tiny_population(COUNTS)
    x = np.random.default_rng(0).normal(size=(3001, 3)).astype(np.float32)
    held_out = PublicSet(x, None, np.zeros(0, np.int64), np.zeros(0, np.int64))
    population = Population(
        population.phases, held_out, None, population.device_class, population.group, ("all",)
    )
    scores = []
    for workers in (0, 1, 3):
        with tiny_engine(workers, population) as engine:
            scores.append(engine.score(TINY_MODEL))
    expected = np.abs(x @ TINY_MODEL[:3] + TINY_MODEL[3] - x.sum(axis=1)).mean()
    assert scores[0]["error"] == pytest.approx(float(expected), rel=1e-5)
    assert scores[0] == scores[1] == scores[2]


def test_devices_are_scored_on_their_own_examples() -> None:
    population = digits_population(COUNTS, test=[3, 0, 700, 1, 2, 2, 2, 2])
    model = initial_model(DIGITS, DIGITS.check({}), 1)
    found = []
    for workers in (0, 2):
        with digits_engine(make_scenario("digits-cnn", 8), population, workers) as engine:
            found.append(engine.score_devices(model, [2, 0, 1], 1))
    module = DIGITS.build(DIGITS.check({}))
    torch.nn.utils.vector_to_parameters(torch.from_numpy(model), module.parameters())
    assert population.device_test is not None
    for place, device in enumerate((2, 0)):
        x, y = population.device_test.of(device)
        assert y is not None
        with torch.no_grad():
            out = module(torch.from_numpy(x))
            loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(y))
        assert found[0].loss[place] == pytest.approx(float(loss), rel=1e-5)
        assert found[0].score[place] == pytest.approx(float((out.argmax(1).numpy() == y).mean()))
    assert found[0].devices.tolist() == [2, 0, 1]
    assert np.isnan([found[0].loss[2], found[0].score[2]]).all()
    np.testing.assert_array_equal(found[0].loss, found[1].loss)
    np.testing.assert_array_equal(found[0].score, found[1].score)


def test_recorded_choices_are_taken_again() -> None:
    population, scenario = tiny_population(COUNTS), make_scenario("tiny", 8)
    choices = {"kernel": "reference:3", "device": "cpu", "workers": "64"}
    with LeanEngine(scenario, TINY, population, workers=1, choices=choices) as engine:
        assert engine.open() == {**choices, "workers": "1"}
        assert engine.open() == {**choices, "workers": "1"}
        answer = engine.train(batch(TINY_MODEL, tasks(range(8))))
    np.testing.assert_allclose(answer.total, np.sum(tiny_updates(WITH_DATA), axis=0), rtol=1e-5)


@pytest.mark.parametrize("choices", [{"kernel": "fast:1"}, {"kernel": "reference:0"}])
def test_choices_that_there_are_not_are_named(choices: dict[str, str]) -> None:
    engine = LeanEngine(make_scenario("tiny", 8), TINY, tiny_population(COUNTS), workers=0, choices=choices)
    with pytest.raises(ConfigError, match="is no choice"):
        engine.open()


def test_a_number_of_workers_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="workers: expected a number from 0"):
        LeanEngine(make_scenario("tiny", 8), TINY, tiny_population(COUNTS), workers=-1)


def test_what_makes_no_sense_is_refused_before_anybody_trains() -> None:
    with tiny_engine() as engine:
        for wrong in (Task(8, 1), Task(-1, 1), Task(0, 0), Task(0, 1, version=1)):
            with pytest.raises(ValueError, match="8 devices, 1 models"):
                engine.train(batch(TINY_MODEL, [wrong]))
        with pytest.raises(ValueError, match="a weight is 0 or"):
            engine.train(batch(TINY_MODEL, [Task(0, 1, weight=-1.0)]))
        with pytest.raises(ValueError, match=r"expected float32 \(4,\)"):
            engine.train(batch(np.zeros(5, np.float32), [Task(0, 1)]))


def test_an_empty_batch_is_an_empty_sum() -> None:
    with tiny_engine(1) as engine:
        answer = engine.train(batch(TINY_MODEL, []))
    assert (answer.weight, answer.count, answer.outcomes) == (0.0, 0, ())
    np.testing.assert_array_equal(answer.total, np.zeros(4))


def test_single_updates_beyond_what_memory_holds_are_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hedgerow.simulations.lean.batches.MAX_EACH_BYTES", 8 * 16 - 1)
    with tiny_engine() as engine, pytest.raises(EngineError, match="use a smaller cohort"):
        engine.train(batch(TINY_MODEL, tasks(range(8)), want="each"))


def test_ten_thousand_tiny_devices_are_one_batch() -> None:
    rng = np.random.default_rng(3)
    counts = [int(c) for c in rng.random(10_000) < 0.2]
    population = tiny_population(counts)
    with tiny_engine(2, population) as engine:
        answer = engine.train(batch(TINY_MODEL, tasks(range(10_000), weight=1e5)))
    chosen = [17, 5_000, 9_998]
    assert answer.count == sum(count > 0 for count in counts)
    assert [answer.outcomes[d].n_samples for d in chosen] == [counts[d] for d in chosen]
    assert np.isfinite(answer.total).all()


def _rest(
    population: Population,
) -> tuple[PublicSet, FlatData | None, Ints, Ints, tuple[str, ...]]:
    return (
        population.held_out,
        population.device_test,
        population.device_class,
        population.group,
        population.group_names,
    )
