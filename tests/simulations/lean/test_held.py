"""The model that the engine holds for its caller: trained and scored from where it lies, to the same bits as a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.simulation_lean import (
    DIGITS,
    batch,
    copied,
    digits_population,
    make_scenario,
    tasks,
    tiny_population,
)
from tests.support.tiny_recipe import RECIPE as TINY

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Batch, Task
from hedgerow.simulations.lean.batches import is_held, load, plan
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.engine import LeanEngine

COUNTS = (6, 11, 3, 9)
MODEL = np.array([0.3, -0.2, 0.1, 0.05], np.float32)


def digits_engine(workers: int) -> LeanEngine:
    population = digits_population(COUNTS, test=(3, 700, 2, 4))
    choices = {"kernel": "explicit:1"}
    engine = LeanEngine(make_scenario("digits-cnn", 4), DIGITS, population, workers=workers, choices=choices)
    engine.open()
    return engine


def tiny_engine(workers: int = 0) -> LeanEngine:
    engine = LeanEngine(make_scenario("tiny", 4), TINY, tiny_population(COUNTS), workers=workers)
    engine.open()
    return engine


@pytest.mark.parametrize("workers", [0, 2])
def test_rounds_in_place_are_those_over_copies(workers: int) -> None:
    first = initial_model(DIGITS, DIGITS.check({}), 1)
    found = []
    for held in (False, True):
        with digits_engine(workers) as engine:
            model = engine.hold(first) if held else first.copy()
            for round in (1, 2):
                answer = engine.train(batch(model, tasks(range(4), round=round)))
                model[:] = model + answer.total / answer.weight
            scores = engine.score(model), engine.score_devices(model, range(4), 2)
            found.append((model.copy(), scores))
    (plain, plain_scores), (here, here_scores) = found
    np.testing.assert_array_equal(plain, here)
    assert plain_scores[0] == here_scores[0]
    np.testing.assert_array_equal(plain_scores[1].loss, here_scores[1].loss)
    assert np.abs(here - first).max() > 1e-3


@pytest.mark.parametrize("workers", [0, 2])
def test_other_models_are_trained_and_scored_beside_it_and_leave_it_alone(workers: int) -> None:
    with tiny_engine(workers) as engine:
        held = engine.hold(MODEL)
        expected = copied(engine.train(batch(MODEL + 1, tasks(range(4)))))
        two = [Task(0, 1, version=1), Task(1, 1, version=0)]
        both = copied(engine.train(Batch([MODEL, MODEL + 1], two)))
        mixed = copied(engine.train(Batch([held, MODEL + 1], two)))
        engine.score(MODEL + 2)
        np.testing.assert_array_equal(held, MODEL)
        held += 1
        answer = engine.train(batch(held, tasks(range(4))))
        np.testing.assert_array_equal(answer.total, expected.total)
        np.testing.assert_array_equal(mixed.total, both.total)


def test_held_is_a_copy_and_outlives_the_engine() -> None:
    given = MODEL.copy()
    with tiny_engine(1) as engine:
        held = engine.hold(given)
        held[0] = 9
        assert given[0] == MODEL[0]
        np.testing.assert_array_equal(engine.hold(given), MODEL)
    np.testing.assert_array_equal(held, MODEL)


def test_only_an_open_engine_holds_models_and_only_of_its_recipe() -> None:
    engine = LeanEngine(make_scenario("tiny", 4), TINY, tiny_population(COUNTS), workers=0)
    with pytest.raises(EngineError, match="not open"):
        engine.hold(MODEL)
    with tiny_engine() as engine:
        wrongs: list[Any] = [np.zeros(3, np.float32), np.zeros(4), np.zeros((1, 4), np.float32)]
        for wrong in wrongs:
            with pytest.raises(ValueError, match=r"model: expected float32 \(4,\)"):
                engine.hold(wrong)


def test_it_is_told_by_where_it_lies_and_not_by_what_it_says() -> None:
    shared = Shared.make(shared=True)
    assert not is_held(Batch([MODEL], []), shared)
    held = shared.held.array(4)
    held[:] = MODEL
    assert is_held(Batch([held], []), shared)
    assert is_held(Batch([shared.held.array(4)], []), shared)
    assert not is_held(Batch([held.copy()], []), shared)
    assert not is_held(Batch([held, held], []), shared)
    assert not shared.held.begins_with(held[1:])
    assert not shared.held.begins_with(held[::2])
    assert not shared.held.begins_with(held[:0])
    shared.close()


def test_no_second_model_is_written_for_it() -> None:
    shared = Shared.make(shared=False)
    held = shared.held.array(4)
    held[:] = MODEL
    world = World(make_scenario("tiny", 4), tiny_population(COUNTS), 4, 4, 0)
    given = Batch([held], tasks(range(4)))
    planned = plan(given, world, 1, 2, control=False, held=True)
    load(given, shared, 4, control=False, held=True)
    assert shared.show(held) == 0
    assert {order.models for order in planned.orders} == {0}
    np.testing.assert_array_equal(shared.base(0, 4)[0], MODEL)
    np.testing.assert_array_equal(shared.models.array(1, 4)[0], np.zeros(4))
    assert shared.show(MODEL) == 1
    np.testing.assert_array_equal(shared.base(1, 4)[0], MODEL)
