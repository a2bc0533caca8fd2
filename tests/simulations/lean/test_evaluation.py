"""Evaluation in pieces that depend on the examples alone."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.simulation_lean import make_scenario, tiny_population
from tests.support.tiny_recipe import RECIPE as TINY

from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.evaluation import ROWS, device_scores, in_parts, predictor
from hedgerow.simulations.lean.keeping import Stateless
from hedgerow.simulations.lean.pool import ForkPool, InlinePool, Pool
from hedgerow.simulations.lean.scoring import stretches
from hedgerow.simulations.lean.worker import Worker

MODEL = np.array([0.5, -1.0, 2.0, 0.25], np.float32)
TEST = (4, 0, 700, 3, 1)


def parts(workers: int) -> tuple[Pool, Shared, World]:
    world = World(make_scenario("tiny", 5), tiny_population((2,) * 5, test=TEST), 4, 4, 0)
    shared = Shared.make(shared=workers > 0)
    kernel = make_kernel("reference", TINY, {}, world.training)
    worker = Worker(world, TINY, kernel, Stateless(), shared)
    pool: Pool = ForkPool(worker.answer, workers) if workers else InlinePool(worker.answer)
    return pool, shared, world


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rows", [0, 1, ROWS, ROWS + 1, 3 * ROWS + 5])
def test_predictions_are_the_models(workers: int, rows: int) -> None:
    pool, shared, world = parts(workers)
    kernel = make_kernel("reference", TINY, {}, world.training)
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    predict = predictor(MODEL, kernel, pool, shared)
    got, again = predict(x), predict(-x)
    pool.close()
    shared.close()
    assert got.shape == (rows, 1)
    np.testing.assert_allclose(got[:, 0], x @ MODEL[:3] + MODEL[3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again[:, 0], -x @ MODEL[:3] + MODEL[3], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got, in_parts(MODEL, kernel, x))


@pytest.mark.parametrize("workers", [0, 2])
def test_losses_are_each_devices_mean(workers: int) -> None:
    pool, shared, world = parts(workers)
    scores = device_scores(MODEL, [4, 2, 1, 0], 3, world, pool, shared)
    none = device_scores(MODEL, [], 3, world, pool, shared)
    pool.close()
    shared.close()
    assert world.population.device_test is not None
    for place, device in ((0, 4), (1, 2), (3, 0)):
        x, _ = world.population.device_test.of(device)
        wide = x.astype(np.float64)
        expected = ((wide @ MODEL[:3] + MODEL[3] - wide.sum(axis=1)) ** 2).mean()
        assert scores.loss[place] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(scores.loss[2])
    assert np.isnan(scores.score).all()
    assert scores.devices.tolist() == [4, 2, 1, 0]
    assert none.devices.shape == none.loss.shape == none.score.shape == (0,)


def test_devices_without_any_held_out_examples_are_scored_with_nothing() -> None:
    pool, shared, world = parts(0)
    population = tiny_population((2,) * 5)
    scores = device_scores(MODEL, [1, 2], 1, world._replace(population=population), pool, shared)
    assert scores.devices.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], []),
        ([5], [[5]]),
        ([3, 3, 3, 3], [[3, 3, 3], [3]]),
        ([50, 1, 1], [[50], [1, 1]]),
        ([1, 50, 1], [[1], [50], [1]]),
        ([0, 0, 9, 2], [[0, 0, 9], [2]]),
    ],
)
def test_stretches_hold_all_in_order(counts: list[int], expected: list[list[int]]) -> None:
    assert [counts[part] for part in stretches(counts, 10)] == expected
