"""How a sum becomes the next model without a copy: the server's own numbers, in the sum's memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import opened
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.server.aggregation.algorithm import fedavg
from hedgerow.simulations.engine.protocol import Answer
from hedgerow.simulations.run.rule import AveragingRule, Gathered
from hedgerow.simulations.run.synchronous import play_round

N = 150_001  # some blocks and a part of one


def gathered(total: np.ndarray, weight: float) -> Gathered:
    return Gathered(1, total, weight, Answer(total, weight, 1, (), {}), {})


@pytest.mark.parametrize(("rate", "weight"), [(1.0, 7.0), (0.3, 1e6), (1.0, 0.0)])
def test_the_mean_in_the_sums_memory_has_the_servers_bits(rate: float, weight: float) -> None:
    rng = np.random.default_rng(3)
    model = rng.standard_normal(N).astype(np.float32)
    total = rng.standard_normal(N)
    before = model.copy()
    _, expected = fedavg(rate).apply(b"", model, total, weight)

    state, after = AveragingRule(rate).release(b"", model, gathered(total, weight))

    assert state == b""
    assert after.dtype == np.float32
    assert np.shares_memory(after, total)
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(model, before)


def test_personal_values_keep_their_bits() -> None:
    rng = np.random.default_rng(4)
    model = rng.standard_normal(N).astype(np.float32)
    total = rng.standard_normal(N)
    moved = model + (total / 2).astype(np.float32)

    _, after = AveragingRule(1.0, personal=1000).release(b"", model, gathered(total, 2.0))

    np.testing.assert_array_equal(after[-1000:], model[-1000:])
    np.testing.assert_allclose(after[:-1000], moved[:-1000], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedprox", "fedavgm", "fedyogi", "scaffold", "flower:FedMedian"]
)
def test_every_strategy_leaves_the_next_model_where_the_engine_trains_from(strategy: str) -> None:
    setting = tiny_setting(tiny_scenario(4, job={"strategy": {"name": strategy}}))
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    state = run.begin()
    held = state.model
    play_round(run, state)
    play_round(run, state)

    assert state.model is held
    first, second = (batch.models[0] for batch in engine.batches)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, state.model)
    np.testing.assert_array_equal(first, setting.model)
