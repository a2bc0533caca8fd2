"""What devices keep between rounds: SCAFFOLD's control and personal layers, held to the papers' algorithms in plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.simulation_lean import (
    DIGITS,
    batch,
    copied,
    digits_population,
    make_scenario,
    strategy,
    tasks,
    tiny_population,
)
from tests.support.tiny_recipe import RECIPE as TINY

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Attack, Vector
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.population.values import Population

COUNTS = (6, 11, 9, 4)
RATE = 0.05  # the scenario's
MODEL = np.array([0.3, -0.2, 0.1, 0.05], np.float32)


def scaffold_engine(workers: int = 0, folder: Path | None = None) -> LeanEngine:
    scenario = make_scenario("tiny", 4, strategy=strategy("scaffold"))
    engine = LeanEngine(scenario, TINY, tiny_population(COUNTS), workers=workers, state_folder=folder)
    engine.open()
    return engine


class PlainScaffold:
    """Algorithm 1 of Karimireddy et al. 2020 with option II in float64, one device after another."""

    def __init__(self) -> None:
        self.own = {device: np.zeros(4) for device in range(4)}
        self.server = np.zeros(4)

    def train(self, model: np.ndarray, device: int, round: int) -> tuple[np.ndarray, np.ndarray]:
        x = tiny_population(COUNTS).at(round).of(device)[0].astype(np.float64)
        order = np.random.default_rng((7, round, device))
        order.integers(2**63)  # PlainTrainer seeds torch with it
        y, steps = model.astype(np.float64).copy(), 0
        for chosen in np.array_split(order.permutation(len(x)), range(4, len(x), 4)):
            error = x[chosen] @ y[:3] + y[3] - x[chosen].sum(axis=1)
            gradient = 2 * np.append(error @ x[chosen], error.sum()) / len(chosen)
            y -= RATE * (gradient - self.own[device] + self.server)
            steps += 1
        new = self.own[device] - self.server + (model - y) / (steps * RATE)
        change, self.own[device] = new - self.own[device], new
        return y - model, change


@pytest.mark.parametrize("workers", [0, 2])
def test_scaffold_is_the_papers_algorithm(workers: int) -> None:
    plain, model = PlainScaffold(), MODEL
    control = np.zeros(4, np.float32)
    with scaffold_engine(workers) as engine:
        for round, devices in enumerate(([0, 1, 2], [1, 3], [0, 1, 2, 3], [2]), start=1):
            answer = engine.train(batch(model, tasks(devices, round=round), control=control))
            updates, changes = zip(*(plain.train(model, d, round) for d in devices), strict=True)
            assert answer.control is not None
            np.testing.assert_allclose(answer.total, np.sum(updates, axis=0), rtol=2e-5, atol=1e-6)
            np.testing.assert_allclose(answer.control, np.sum(changes, axis=0), rtol=2e-4, atol=1e-5)
            model = (model + answer.total / answer.count).astype(np.float32)
            plain.server = plain.server + answer.control / 4
            control = plain.server.astype(np.float32)
    assert np.abs(control).max() > 0.1


def test_control_travels_beside_the_update() -> None:
    with scaffold_engine() as engine:
        assert engine.train(batch(MODEL, tasks([0]))).outcomes[0].n_bytes == 32


def test_weights_are_of_updates_and_not_of_control() -> None:
    with scaffold_engine() as engine:
        light = copied(engine.train(batch(MODEL, tasks([0, 1]))))
        heavy = engine.train(batch(MODEL, tasks([0, 1], weight=8.0)))
    np.testing.assert_allclose(heavy.total, 8 * light.total)
    np.testing.assert_array_equal(heavy.control, light.control)


def test_a_rejected_device_changes_neither_control() -> None:
    broken = tasks([0], attack=Attack("nan"))
    with scaffold_engine() as engine:
        first = copied(engine.train(batch(MODEL, broken)))
        second = engine.train(batch(MODEL, tasks([0], round=2)))
    with scaffold_engine() as engine:
        alone = engine.train(batch(MODEL, tasks([0], round=2)))
    np.testing.assert_array_equal(first.control, np.zeros(4))
    np.testing.assert_array_equal(second.total, alone.total)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_round_done_again_from_a_checkpoint_gives_the_same_bits(tmp_path: Path, interrupted: bool) -> None:
    def round_of(engine: LeanEngine, round: int) -> Answer:
        control = np.full(4, 0.01 * round, np.float32)
        return engine.train(batch(MODEL, tasks(range(4), round=round), control=control))

    with scaffold_engine() as engine:
        straight = [round_of(engine, round) for round in (1, 2, 3, 4)]
    with scaffold_engine(1, tmp_path) as engine:
        for round in (1, 2, 3):
            round_of(engine, round)
        if interrupted:  # a part of round 4, then the end
            engine.train(batch(MODEL + 1, tasks([1, 2], round=4), control=np.zeros(4, np.float32)))
    with scaffold_engine(2, tmp_path) as engine:
        for round in (3, 4) if not interrupted else (4,):
            again = round_of(engine, round)
    np.testing.assert_array_equal(again.total, straight[3].total)
    np.testing.assert_array_equal(again.control, straight[3].control)


def test_going_back_further_than_is_kept_is_an_error_in_words(tmp_path: Path) -> None:
    with scaffold_engine(1, tmp_path) as engine:
        for round in (1, 2, 3):
            engine.train(batch(MODEL, tasks([0], round=round)))
        with pytest.raises(EngineError, match="device 0 kept before round 2 is gone"):
            engine.train(batch(MODEL, tasks([0], round=2)))


EXPLICIT = {"kernel": "explicit:1"}
PERSONAL = 2  # tensors: the last layer's weights and bias


def fedper_engine(population: Population, workers: int = 0) -> tuple[LeanEngine, Vector]:
    scenario = make_scenario("digits-cnn", 4, strategy=strategy("fedper", personal_tensors=PERSONAL))
    engine = LeanEngine(scenario, DIGITS, population, workers=workers, choices=EXPLICIT)
    engine.open()
    return engine, initial_model(DIGITS, DIGITS.check({}), 1)


def tail_size() -> int:
    return sum(p.numel() for p in list(DIGITS.build(DIGITS.check({})).parameters())[-PERSONAL:])


def whole_update(population: Population, model: Vector, device: int, round: int) -> Vector:
    """Return an update of all layers: what the same engine gives without personal ones."""
    scenario = make_scenario("digits-cnn", 4)
    with LeanEngine(scenario, DIGITS, population, workers=0, choices=EXPLICIT) as engine:
        engine.open()
        return engine.train(batch(model, tasks([device], round=round))).total.astype(np.float32)


@pytest.mark.parametrize("workers", [0, 2])
def test_personal_layers_stay_on_the_device_and_are_there_the_next_time(workers: int) -> None:
    population = digits_population(COUNTS)
    engine, model = fedper_engine(population, workers)
    size = tail_size()
    mine = {device: model.copy() for device in range(4)}
    with engine:
        for round in (1, 2, 3):
            answer = engine.train(batch(model, tasks([0, 2], round=round)))
            updates = {device: whole_update(population, mine[device], device, round) for device in (0, 2)}
            np.testing.assert_array_equal(answer.total[-size:], np.zeros(size))
            np.testing.assert_allclose(
                answer.total[:-size], np.sum([*updates.values()], axis=0)[:-size], atol=2e-6
            )
            model = (model + answer.total / 2).astype(np.float32)
            for device, update in updates.items():
                mine[device] = np.concatenate([model[:-size], mine[device][-size:] + update[-size:]])
    assert not np.allclose(mine[0][-size:], mine[2][-size:], atol=1e-4)


def test_only_shared_layers_travel() -> None:
    engine, model = fedper_engine(digits_population(COUNTS))
    with engine:
        answer = engine.train(batch(model, tasks([0]), want="each"))
    assert answer.outcomes[0].n_bytes == 4 * (model.size - tail_size())
    np.testing.assert_array_equal(answer.updates[0][-tail_size() :], 0)


def test_a_device_is_scored_with_its_own_layers_if_it_has_some() -> None:
    population = digits_population(COUNTS, test=[8, 8, 8, 8])
    engine, model = fedper_engine(population)
    size = tail_size()
    with engine:
        for round in range(1, 6):
            engine.train(batch(model, tasks([0], round=round)))
        scores = engine.score_devices(model, [0, 1], 5)
    mine = model.copy()
    for round in range(1, 6):
        base = np.concatenate([model[:-size], mine[-size:]])
        mine = base + whole_update(population, base, 0, round)
    own = np.concatenate([model[:-size], mine[-size:]])
    for place, used in ((0, own), (1, model)):
        assert scores.loss[place] == pytest.approx(_loss(population, used, place), rel=1e-4)
    assert scores.loss[0] != pytest.approx(_loss(population, model, 0), rel=1e-3)


def _loss(population: Population, model: Vector, device: int) -> float:
    assert population.device_test is not None
    x, y = population.device_test.of(device)
    assert y is not None
    module = DIGITS.build(DIGITS.check({}))
    torch.nn.utils.vector_to_parameters(torch.from_numpy(model), module.parameters())
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)))
