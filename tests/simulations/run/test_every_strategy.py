"""Whole runs of every strategy, by the real engine and its processes, against the papers written out in numpy.

Nothing of the project takes part on the other side but the order of batches, which a scenario promises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.support.simulation_setting import flat, tiny_scenario

from hedgerow.models.recipes.mlp import RECIPE as MLP
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.population.values import FlatData, Phase, Population
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.setting import Setting, personal_values
from hedgerow.simulations.run.state import State
from hedgerow.simulations.run.synchronous import play_round

Doubles = npt.NDArray[np.float64]
INPUTS, HIDDEN, CLASSES = 4, 5, 3
COUNTS = (7, 12, 3, 9, 5)
SIZES = (HIDDEN * INPUTS, HIDDEN, CLASSES * HIDDEN, CLASSES)
N = sum(SIZES)
JOB_SEED, ROUNDS = 5, 4
PARAMETERS = {"inputs": INPUTS, "hidden": [HIDDEN], "classes": CLASSES}


def data() -> FlatData:
    parts = [np.random.default_rng(n).normal(size=(count, INPUTS)) for n, count in enumerate(COUNTS)]
    x = flat(parts)
    y = np.random.default_rng(99).integers(0, CLASSES, sum(COUNTS))
    return FlatData(x.x, y.astype(np.int64), x.offsets)


def setting_of(strategy: dict[str, Any], training: dict[str, Any], **job: Any) -> Setting:
    given = {
        "recipe": "mlp",
        "parameters": PARAMETERS,
        "rounds": ROUNDS,
        "seed": JOB_SEED,
        "strategy": strategy,
        "training": {"batch_size": 4, "learning_rate": 0.1, "local_epochs": 2, **training},
        **job,
    }
    scenario = tiny_scenario(len(COUNTS), job=given)
    parameters = MLP.check(PARAMETERS)
    zeros = np.zeros(len(COUNTS), np.int64)
    population = Population((Phase(1, data()),), MLP.public_set(parameters), None, zeros, zeros, ("all",))
    return Setting(scenario, MLP, population, N, personal_values(scenario, MLP))


def gradient(model: Doubles, x: Doubles, y: npt.NDArray[np.int64]) -> Doubles:
    """Return the gradient of the mean cross-entropy of two dense layers with a ReLU between, by hand."""
    cut = np.split(model, np.cumsum(SIZES)[:-1])
    first, bias, second, last = (
        cut[0].reshape(HIDDEN, INPUTS),
        cut[1],
        cut[2].reshape(CLASSES, HIDDEN),
        cut[3],
    )
    before = x @ first.T + bias
    hidden = np.maximum(before, 0)
    logits = hidden @ second.T + last
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    shares /= len(y)
    back = (shares @ second) * (before > 0)
    return np.concatenate([(back.T @ x).ravel(), back.sum(0), (shares.T @ hidden).ravel(), shares.sum(0)])


Step = Callable[[Doubles, Doubles, int], Doubles]


def descent(rate: float, momentum: float = 0.0) -> Step:
    memory = np.zeros(N)

    def step(at: Doubles, slope: Doubles, t: int) -> Doubles:
        memory[:] = slope if t == 1 else momentum * memory + slope
        after: Doubles = at - rate * memory
        return after

    return step


def adam(rate: float) -> Step:
    """Return Adam (Kingma and Ba 2015, algorithm 1) with its paper's constants."""
    m, v = np.zeros(N), np.zeros(N)

    def step(at: Doubles, slope: Doubles, t: int) -> Doubles:
        m[:] = 0.9 * m + 0.1 * slope
        v[:] = 0.999 * v + 0.001 * slope**2
        after: Doubles = at - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return after

    return step


def local(model: Doubles, device: int, round: int, make: Callable[[], Step], mu: float = 0.0) -> Doubles:
    """Return new − old of one device: two epochs in batches of four, in the order that a scenario promises."""
    x, y = data().of(device)
    assert y is not None
    rng = np.random.default_rng((JOB_SEED, round, device))
    rng.integers(2**63)
    at, step, t = model.copy(), make(), 0
    for _ in range(2):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 4):
            rows = order[start : start + 4]
            t += 1
            at = step(at, gradient(at, x[rows].astype(np.float64), y[rows]) + mu * (at - model), t)
    return at - model


Server = Callable[[Doubles], Doubles]


def averaging(rate: float) -> Server:
    return lambda mean: rate * mean


def with_momentum(rate: float, beta: float) -> Server:
    v = np.zeros(N)

    def server(mean: Doubles) -> Doubles:
        v[:] = beta * v + mean
        step: Doubles = rate * v
        return step

    return server


def adaptive(rate: float, yogi: bool, beta_1: float, beta_2: float, tau: float) -> Server:
    """Reddi et al. 2021, algorithm 2."""
    m, v = np.zeros(N), np.full(N, tau**2)

    def server(mean: Doubles) -> Doubles:
        m[:] = beta_1 * m + (1 - beta_1) * mean
        square = mean**2
        v[:] = v - (1 - beta_2) * square * np.sign(v - square) if yogi else beta_2 * v + (1 - beta_2) * square
        step: Doubles = rate * m / (np.sqrt(v) + tau)
        return step

    return server


def plain() -> Step:
    return descent(0.1)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[], Step], float, Callable[[], Server]]] = {
    "fedavg": ({"name": "fedavg", "server_learning_rate": 0.7}, {}, plain, 0.0, lambda: averaging(0.7)),
    "local-momentum": (
        {"name": "fedavg"}, {"momentum": 0.8}, lambda: descent(0.1, 0.8), 0.0, lambda: averaging(1.0),
    ),
    "local-adam": (
        {"name": "fedavg"}, {"optimizer": "adam", "learning_rate": 0.01}, lambda: adam(0.01), 0.0, lambda: averaging(1.0),
    ),
    "fedprox": ({"name": "fedprox"}, {"proximal_mu": 0.9}, plain, 0.9, lambda: averaging(1.0)),
    "fedavgm": (
        {"name": "fedavgm", "server_learning_rate": 0.5, "options": {"server_momentum": 0.6}},
        {}, plain, 0.0, lambda: with_momentum(0.5, 0.6),
    ),
    "fedadam": (
        {"name": "fedadam", "server_learning_rate": 0.05, "options": {"beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}},
        {}, plain, 0.0, lambda: adaptive(0.05, False, 0.8, 0.95, 0.01),
    ),
    "fedyogi": (
        {"name": "fedyogi", "server_learning_rate": 0.05, "options": {"tau": 0.02}},
        {}, plain, 0.0, lambda: adaptive(0.05, True, 0.9, 0.99, 0.02),
    ),
}  # fmt: skip


def rounds_of(setting: Setting, kernel: str, workers: int) -> list[tuple[list[int], np.ndarray]]:
    """Return who took part and the model after each round, by the engine in processes of its own."""
    engine = LeanEngine(
        setting.scenario, MLP, setting.population, workers=workers, choices={"kernel": kernel}
    )
    try:
        engine.open()
        run = Run.of(setting, engine, Ledger())
        state: State = run.begin()
        found = []
        for _ in range(ROUNDS):
            before = state.totals.rounds.copy()
            play_round(run, state)
            found.append((np.flatnonzero(state.totals.rounds - before).tolist(), state.model.copy()))
        return found
    finally:
        engine.close()


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("name", CASES)
def test_a_run_is_what_the_paper_says(name: str, weighting: str) -> None:
    strategy, training, make, mu, server_of = CASES[name]
    setting = setting_of({**strategy, "weighting": weighting}, training, cohort={"rule": "fixed", "size": 3})
    kernel = "stacked:3" if weighting == "samples" else "explicit:1"
    if training.get("optimizer") == "adam" or training.get("momentum"):
        kernel = "reference:1"
    model, server = setting.model.astype(np.float64), server_of()
    drawn: set[int] = set()
    for round, (who, after) in enumerate(rounds_of(setting, kernel, workers=2), start=1):
        assert len(who) == 3
        weights = np.array([COUNTS[d] if weighting == "samples" else 1.0 for d in who])
        moved = np.array([local(model, d, round, make, mu) for d in who])
        model = model + server((weights[:, None] * moved).sum(0) / weights.sum())
        assert np.abs(after - model).max() < 2e-5, round
        drawn |= set(who)
    assert len(drawn) > 3
    assert np.abs(model - setting.model).max() > 0.01


def test_personal_layers_are_each_devices_own_and_the_rest_is_averaged() -> None:
    """Arivazhagan et al. 2019, algorithm 1: the last layer stays where it is trained."""
    setting = setting_of({"name": "fedper", "options": {"personal_tensors": 2}}, {})
    mine = SIZES[2] + SIZES[3]
    assert setting.personal == mine
    shared = setting.model[:-mine].astype(np.float64)
    own = {d: setting.model[-mine:].astype(np.float64) for d in range(len(COUNTS))}
    for round, (who, after) in enumerate(rounds_of(setting, "reference:1", workers=2), start=1):
        assert who == list(range(len(COUNTS)))
        moved = {d: local(np.concatenate([shared, own[d]]), d, round, plain) for d in who}
        own = {d: own[d] + moved[d][-mine:] for d in who}
        shared = shared + np.mean([moved[d][:-mine] for d in who], axis=0)
        assert np.abs(after[:-mine] - shared).max() < 2e-5
        assert np.array_equal(after[-mine:], setting.model[-mine:])


@pytest.mark.parametrize("workers", [1, 3])
def test_control_variates_correct_every_step_of_every_batch(workers: int) -> None:
    """Karimireddy et al. 2020, algorithm 1, option II, with devices that take different numbers of steps."""
    setting = setting_of({"name": "scaffold"}, {}, cohort={"rule": "fixed", "size": 3})
    x, c = setting.model.astype(np.float64), np.zeros(N)
    own = np.zeros((len(COUNTS), N))
    for round, (who, after) in enumerate(rounds_of(setting, "reference:1", workers), start=1):
        moved, changed = [], []
        for device in who:
            correction = c - own[device]

            def step(at: Doubles, slope: Doubles, t: int, by: Doubles = correction) -> Doubles:
                after: Doubles = at - 0.1 * (slope + by)
                return after

            delta = local(x, device, round, lambda step=step: step)  # type: ignore[misc]
            steps = 2 * -(-COUNTS[device] // 4)
            fresh = own[device] - c - delta / (steps * 0.1)
            moved.append(delta)
            changed.append(fresh - own[device])
            own[device] = fresh
        x = x + np.mean(moved, axis=0)
        c = c + np.sum(changed, axis=0) / len(COUNTS)
        assert np.abs(after - x).max() < 5e-5, round
