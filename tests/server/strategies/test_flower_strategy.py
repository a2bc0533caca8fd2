"""Contract with the pinned Flower: each strategy of the catalogue against its formula in plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest

from hedgerow.server.aggregation.aggregator import AggregationError, Update
from hedgerow.server.strategies import catalogue
from hedgerow.server.strategies.flower_strategy import FlowerAggregator
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.packing import Vector, pack

N = 30
ROUNDS = 3
Deltas = list[np.ndarray]
Oracle = Callable[[Any, int, np.ndarray, Deltas], tuple[Any, np.ndarray]]


def deltas_of(round: int, devices: int = 7) -> Deltas:
    rng = np.random.default_rng(round)
    return [rng.standard_normal(N).astype(np.float32) for _ in range(devices)]


def run(name: str, options: dict[str, float], devices: int = 7, shuffle: bool = False) -> list[Vector]:
    """Return the models after each round, every round from a fresh aggregator and the last one's state."""
    model, state, models = np.linspace(-1, 1, N).astype(np.float32), b"", []
    for round in range(1, ROUNDS + 1):
        total = FlowerAggregator(name, options, N, "float32").open(round, state)
        numbered = list(enumerate(deltas_of(round, devices)))
        if shuffle:
            np.random.default_rng(round).shuffle(numbered)
        for number, delta in numbered:
            total.add(Update(f"d{number}", [memoryview(pack(delta, "float32"))], loss=0.5 + number))
        model, state = total.release(model)
        models.append(model)
    return models


def replay(oracle: Oracle, devices: int = 7) -> list[np.ndarray]:
    model, state, models = np.linspace(-1, 1, N).astype(np.float32).astype(np.float64), None, []
    for round in range(1, ROUNDS + 1):
        state, model = oracle(state, round, model, deltas_of(round, devices))
        models.append(model)
    return models


def avgm(state: Any, _round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
    momentum = -np.mean(deltas, axis=0) + (0.9 * state if state is not None else 0)
    return momentum, model - 0.5 * momentum


def adaptive(second: Callable[[Any, np.ndarray], np.ndarray], beta_1: float, correct: bool) -> Oracle:
    def step(state: Any, round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
        delta = np.mean(deltas, axis=0)
        m, v = state if state is not None else (np.zeros(N), np.zeros(N))
        m, v = beta_1 * m + (1 - beta_1) * delta, second(v, delta)
        rate = 0.1
        if correct:
            rate *= np.sqrt(1 - 0.99 ** (round + 1)) / (1 - beta_1 ** (round + 1))
        return (m, v), model + rate * m / (np.sqrt(v) + 1e-3)

    return step


def median(_state: Any, _round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
    return None, model + np.median(deltas, axis=0)


def trimmed(_state: Any, _round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
    cut = int(0.3 * len(deltas))
    return None, model + np.sort(deltas, axis=0)[cut : len(deltas) - cut].mean(axis=0)


def krum_order(deltas: Deltas, malicious: int) -> list[int]:
    stack = np.array(deltas, np.float64)
    squared = ((stack[:, None] - stack[None]) ** 2).sum(axis=2)
    closest = len(deltas) - malicious - 2
    scores = [np.sort(np.delete(row, i))[:closest].sum() for i, row in enumerate(squared)]
    return list(np.argsort(scores))


def multikrum(select: int) -> Oracle:
    def step(_state: Any, _round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
        chosen = krum_order(deltas, 2)[:select]
        return None, model + np.mean([deltas[i] for i in chosen], axis=0)

    return step


def bulyan(_state: Any, _round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
    theta, beta = len(deltas) - 2, len(deltas) - 4
    chosen = np.array([deltas[i] for i in krum_order(deltas, 1)[:theta]], np.float64)
    nearest = np.argsort(np.abs(chosen - np.median(chosen, axis=0)), axis=0)[:beta]
    return None, model + np.take_along_axis(chosen, nearest, axis=0).mean(axis=0)


def qfedavg(_state: Any, _round: int, model: np.ndarray, deltas: Deltas) -> tuple[Any, np.ndarray]:
    """Li et al. 2020 (Fair resource allocation), algorithm 2, with L = 1 / 0.05 and q = 0.2."""
    q, lipschitz = 0.2, 1 / 0.05
    tops, bottoms = np.zeros(N), 0.0
    for number, delta in enumerate(deltas):
        loss = 0.5 + number
        gradient = -lipschitz * delta.astype(np.float64)
        tops += loss**q * gradient
        bottoms += q * loss ** (q - 1) * (gradient**2).sum() + lipschitz * loss**q
    return None, model - tops / bottoms


def yogi_second(v: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.asarray(v - (1 - 0.99) * d**2 * np.sign(v - d**2))


CASES: dict[str, tuple[dict[str, float], Oracle]] = {
    "FedAvgM": ({"server_learning_rate": 0.5, "server_momentum": 0.9}, avgm),
    "FedAdam": ({"eta": 0.1}, adaptive(lambda v, d: 0.99 * v + 0.01 * d**2, 0.9, correct=True)),
    "FedAdagrad": ({"eta": 0.1}, adaptive(lambda v, d: v + d**2, 0.0, correct=False)),
    "FedYogi": ({"eta": 0.1}, adaptive(yogi_second, 0.9, correct=False)),
    "FedMedian": ({}, median),
    "FedTrimmedAvg": ({"beta": 0.3}, trimmed),
    "Krum": ({"num_malicious_nodes": 2}, multikrum(1)),
    "MultiKrum": ({"num_malicious_nodes": 2, "num_nodes_to_select": 4}, multikrum(4)),
    "Bulyan": ({"num_malicious_nodes": 1}, bulyan),
    "QFedAvg": ({"q": 0.2, "client_learning_rate": 0.05}, qfedavg),
}


def test_every_strategy_that_may_be_named_is_tried_here_and_is_in_flower() -> None:
    assert set(CASES) == set(catalogue.FLOWER)
    assert set(CASES) <= set(flower.__all__)


@pytest.mark.parametrize("name", CASES)
def test_a_strategy_does_what_its_formula_says_over_rounds_that_each_start_from_a_checkpoint(
    name: str,
) -> None:
    options, oracle = CASES[name]
    for ours, expected in zip(run(name, options), replay(oracle), strict=True):
        assert ours.dtype == np.float32
        assert ours == pytest.approx(expected, rel=2e-4, abs=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_arrival_does_not_matter(name: str) -> None:
    options, _ = CASES[name]
    for one, other in zip(run(name, options), run(name, options, shuffle=True), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_without_updates_the_model_and_the_state_stay(name: str) -> None:
    total = FlowerAggregator(name, CASES[name][0], N, "float32").open(1, b"")
    released = total.release(np.ones(N, np.float32))
    assert (released.model.tolist(), released.state) == ([1.0] * N, b"")


@pytest.mark.parametrize(("name", "needed"), [("Krum", 7), ("MultiKrum", 7), ("Bulyan", 7)])
def test_too_few_updates_for_a_robust_strategy_are_an_error_not_a_guess(name: str, needed: int) -> None:
    options, _ = CASES[name]
    assert catalogue.fewest_updates(name, int(options["num_malicious_nodes"])) == needed
    with pytest.raises(AggregationError, match=f"needs {needed} updates, 6 came"):
        run(name, options, devices=6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_updates_that_cannot_count_are_refused_and_not_held(value: float) -> None:
    total = FlowerAggregator("FedMedian", {}, N, "float32").open(1, b"")
    with pytest.raises(UpdateRejectedError):
        total.add(Update("d", [memoryview(np.full(N, value, "<f4").tobytes())]))
    assert total.count == 0


@pytest.mark.parametrize("loss", [None, float("nan"), -1.0])
def test_qfedavg_refuses_updates_without_a_usable_loss(loss: float | None) -> None:
    total = FlowerAggregator("QFedAvg", CASES["QFedAvg"][0], N, "float32").open(1, b"")
    with pytest.raises(UpdateRejectedError, match="training loss"):
        total.add(Update("d", [memoryview(bytes(4 * N))], loss=loss))


def test_weights_reach_the_strategy() -> None:
    total = FlowerAggregator("FedAvgM", {}, N, "float32").open(1, b"")
    total.add(Update("a", [memoryview(bytes(4 * N))], weight=3.0))
    total.add(Update("b", [memoryview(np.full(N, 4, "<f4").tobytes())], weight=1.0))
    assert total.release(np.zeros(N, np.float32)).model == pytest.approx(np.ones(N))


@pytest.mark.parametrize("name", ["FedAvg", "os.system", "flwr.serverapp.strategy.FedAdam", "", "__init__"])
def test_only_names_of_the_catalogue_become_strategies(name: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        FlowerAggregator(name, {}, N, "float32")
