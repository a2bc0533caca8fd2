"""FedAvgM, FedAdam and FedYogi against the papers' formulas written once more, value by value in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.aggregation import algorithm as module
from hedgerow.server.aggregation.algorithm import Algorithm, algorithm_for, fedadam, fedavg, fedavgm, fedyogi
from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.job import StrategySpec
from hedgerow.shared.packing import Vector


def by_the_paper(
    name: str, x: list[float], means: list[list[float]], options: dict[str, float]
) -> list[float]:
    """Reddi et al. 2021, algorithm 2, and Hsu et al. 2019, section 4.2; one coordinate at a time."""
    rate = options["rate"]
    out = []
    for coordinate, start in enumerate(x):
        value, m = start, 0.0
        v = options.get("tau", 0.0) ** 2
        for mean in means:
            g = mean[coordinate]
            if name == "fedavgm":
                m = options["server_momentum"] * m + g
                value += rate * m
                continue
            m = options["beta_1"] * m + (1 - options["beta_1"]) * g
            if name == "fedadam":
                v = options["beta_2"] * v + (1 - options["beta_2"]) * g * g
            else:
                sign = (v > g * g) - (v < g * g)
                v = v - (1 - options["beta_2"]) * g * g * sign
            value += rate * m / (math.sqrt(v) + options["tau"])
        out.append(value)
    return out


def run(algorithm: Algorithm, model: Vector, means: list[list[float]], weight: float) -> Vector:
    state = algorithm.init(model.size)
    for mean in means:
        state, model = algorithm.apply(state, model, np.array(mean, np.float64) * weight, weight)
    return model


MAKERS: dict[str, Callable[..., Algorithm]] = {"fedavgm": fedavgm, "fedadam": fedadam, "fedyogi": fedyogi}
OPTIONS: dict[str, list[dict[str, float]]] = {
    "fedavgm": [{"rate": 1.0, "server_momentum": 0.9}, {"rate": 0.3, "server_momentum": 0.4}],
    "fedadam": [
        {"rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
        {"rate": 1.0, "beta_1": 0.0, "beta_2": 0.5, "tau": 0.1},
    ],
    "fedyogi": [
        {"rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
        {"rate": 0.5, "beta_1": 0.5, "beta_2": 0.9, "tau": 0.2},
    ],
}
CASES = [(name, options) for name, all_options in OPTIONS.items() for options in all_options]


def made(name: str, options: dict[str, float]) -> Algorithm:
    rest = {key: value for key, value in options.items() if key != "rate"}
    return MAKERS[name](options["rate"], **rest)


@pytest.mark.parametrize(("name", "options"), CASES)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    rounds=st.integers(1, 6),
    weight=st.sampled_from([1.0, 7.0, 12.5]),
)
@settings(max_examples=40, deadline=None)
def test_each_step_is_the_papers(
    name: str, options: dict[str, float], seed: int, n: int, rounds: int, weight: float
) -> None:
    rng = np.random.default_rng(seed)
    model = rng.standard_normal(n).astype(np.float32)
    means = rng.standard_normal((rounds, n)).tolist()

    found = run(made(name, options), model, means, weight)

    expected = by_the_paper(name, model.tolist(), means, options)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_model_of_several_blocks_is_stepped_as_one(
    name: str, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    model = rng.standard_normal(1000).astype(np.float32)
    means = rng.standard_normal((3, 1000)).tolist()

    whole = run(made(name, options), model, means, 4.0)
    monkeypatch.setattr(module, "_STEP", 64)
    blocks = run(made(name, options), model, means, 4.0)

    assert np.array_equal(whole, blocks)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_state_is_float32_and_carries_over_a_restart(name: str, options: dict[str, float]) -> None:
    rng = np.random.default_rng(4)
    model, total = rng.standard_normal((2, 50)).astype(np.float32)
    first = made(name, options)
    vectors = 1 if name == "fedavgm" else 2

    assert first.init(50) == b""
    state, after = first.apply(b"", model, total.astype(np.float64), 3.0)
    assert len(state) == 4 * 50 * vectors
    assert np.isfinite(np.frombuffer(state, "<f4")).all()
    assert np.array_equal(
        first.apply(state, after, total, 3.0)[1], made(name, options).apply(state, after, total, 3.0)[1]
    )
    assert not np.array_equal(
        first.apply(b"", after, total, 3.0)[1], first.apply(state, after, total, 3.0)[1]
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_nothing_moves_without_updates_and_nothing_given_is_changed(
    name: str, options: dict[str, float]
) -> None:
    algorithm = made(name, options)
    model, total = np.ones(5, np.float32), np.full(5, 2.0)
    state, _ = algorithm.apply(b"", model, total, 2.0)

    assert model.tolist() == [1.0] * 5
    assert total.tolist() == [2.0] * 5
    kept, still = algorithm.apply(state, model, np.zeros(5), 0.0)
    assert (kept, still.tolist()) == (state, model.tolist())
    assert still is not model


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_state_of_another_model_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="strategy state"):
        MAKERS[name]().apply(bytes(12), np.ones(5, np.float32), np.ones(5), 1.0)


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
def test_a_model_without_values_is_no_trouble(name: str) -> None:
    algorithm = algorithm_for(StrategySpec(name=name))

    state, after = algorithm.apply(algorithm.init(0), np.zeros(0, np.float32), np.zeros(0), 1.0)

    assert (state, after.size) == (b"", 0)


def test_momentum_of_zero_is_fedavg() -> None:
    rng = np.random.default_rng(5)
    model, total = rng.standard_normal((2, 30)).astype(np.float32)

    plain = fedavg(0.5).apply(b"", model, total.astype(np.float64), 3.0)[1]
    assert np.allclose(
        fedavgm(0.5, 0.0).apply(b"", model, total.astype(np.float64), 3.0)[1], plain, rtol=1e-6
    )


def test_yogi_lets_go_of_a_large_second_moment_more_slowly_than_adam() -> None:
    """After one large mean, small ones follow: Adam's v shrinks by a factor, Yogi's by what is added at most."""
    model, steps = np.zeros(1, np.float32), [[10.0]] + [[0.1]] * 50
    seconds = {}
    for name in ("fedadam", "fedyogi"):
        state = b""
        for mean in steps:
            state, _ = MAKERS[name](0.1).apply(state, model, np.array(mean), 1.0)
        seconds[name] = float(np.frombuffer(state, "<f4")[1])

    assert seconds["fedyogi"] > 1.5 * seconds["fedadam"]


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        (StrategySpec(name="fedavgm", server_learning_rate=0.5), fedavgm(0.5, 0.9)),
        (StrategySpec(name="fedavgm", options={"server_momentum": 0.3}), fedavgm(1.0, 0.3)),
        (StrategySpec(name="fedadam", options={"beta_1": 0.1, "tau": 0.5}), fedadam(1.0, 0.1, 0.99, 0.5)),
        (StrategySpec(name="fedyogi", options={"beta_2": 0.2}), fedyogi(1.0, 0.9, 0.2)),
        (StrategySpec(name="fedprox", options={"max_update_norm_l2": 3.0}), fedavg(1.0)),
    ],
    ids=lambda value: value.name if isinstance(value, StrategySpec) else "",
)
def test_a_jobs_options_reach_the_algorithm(spec: StrategySpec, same: Algorithm) -> None:
    def twice(algorithm: Algorithm) -> Any:
        model, total = np.linspace(-1, 1, 9).astype(np.float32), np.linspace(0, 2, 9)
        state, model = algorithm.apply(algorithm.init(9), model, total, 2.0)
        return algorithm.apply(state, model, total, 2.0)[1].tolist()

    assert twice(algorithm_for(spec)) == twice(same)


def test_a_name_that_is_not_ours_is_no_algorithm() -> None:
    with pytest.raises(KeyError):
        algorithm_for(StrategySpec(name="flower:FedAdam"))
