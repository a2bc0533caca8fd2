"""Noise and draws come from the operating system: distribution, independence of seeds, forks.

The statistical tests draw fresh noise each time. Each bound is six standard errors (or the same probability by
another law): a sound generator fails one of them about once in five hundred million runs.
"""

from __future__ import annotations

import math
import os
import random

import numpy as np
import pytest
import torch

from hedgerow.edge_agent.trainer.noise import SystemRandom

SIX = 6.0
N = 400_000


@pytest.mark.parametrize("sigma", [0.01, 1.0, 37.5])
def test_noise_has_the_mean_and_the_spread_asked_for(sigma: float) -> None:
    drawn = SystemRandom().gaussian(N, sigma)

    assert abs(drawn.mean()) < SIX * sigma / math.sqrt(N)
    assert abs(drawn.var() / sigma**2 - 1) < SIX * math.sqrt(2 / N)


def test_a_wrong_spread_by_two_percent_would_be_noticed() -> None:
    drawn = SystemRandom().gaussian(N, 1.02)

    assert abs(drawn.var() - 1) > SIX * math.sqrt(2 / N)


def test_noise_has_the_shape_of_a_gaussian() -> None:
    drawn = SystemRandom().gaussian(N, 1.0)

    for bound in (0.1, 0.5, 1.0, 2.0, 3.0):
        share = math.erf(bound / math.sqrt(2))
        seen = float((np.abs(drawn) < bound).mean())
        assert abs(seen - share) < SIX * math.sqrt(share * (1 - share) / N)
    skew, kurtosis = float((drawn**3).mean()), float((drawn**4).mean())
    assert abs(skew) < SIX * math.sqrt(15 / N)
    assert abs(kurtosis - 3) < SIX * math.sqrt(96 / N)


def test_neighbouring_draws_and_both_halves_of_a_block_are_uncorrelated() -> None:
    drawn = SystemRandom().gaussian(N, 1.0)

    for first, second in ((drawn[:-1], drawn[1:]), (drawn[: N // 2], drawn[N // 2 :])):
        assert abs(float((first * second).mean())) < SIX / math.sqrt(len(first))
        squares = float(((first**2 - 1) * (second**2 - 1)).mean())
        assert abs(squares) < SIX * 2 / math.sqrt(len(first))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 262_143, 262_144, 262_145, 524_289])
def test_any_count_is_filled_and_finite(count: int) -> None:
    drawn = SystemRandom().gaussian(count, 1.0)

    assert drawn.shape == (count,)
    assert drawn.dtype == np.float64
    assert np.isfinite(drawn).all()
    assert len(np.unique(drawn)) == count


def test_even_the_smallest_and_largest_words_give_finite_noise() -> None:
    class Extreme(SystemRandom):
        def __init__(self, word: int) -> None:
            super().__init__()
            self.word = word

        def words(self, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
            return np.full(count, self.word, np.uint64)

    for word in (0, 2**64 - 1):
        drawn = Extreme(word).gaussian(4, 1.0)
        assert np.isfinite(drawn).all()
        assert np.abs(drawn).max() < 9


def test_seeds_of_numpy_torch_and_python_reach_neither_noise_nor_draws() -> None:
    def draw() -> tuple[bytes, bytes]:
        np.random.seed(1)
        torch.manual_seed(1)
        random.seed(1)
        source = SystemRandom()
        return source.gaussian(64, 1.0).tobytes(), source.poisson_batch(512, 0.5).tobytes()

    first, second = draw(), draw()

    assert first[0] != second[0]
    assert first[1] != second[1]


def test_drawing_leaves_the_generators_of_others_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.random()
    torch.manual_seed(5)
    np.random.seed(5)

    SystemRandom().gaussian(100, 1.0)

    assert (torch.rand(1), np.random.random()) == expected


def test_a_fork_does_not_repeat_its_parents_noise() -> None:
    source = SystemRandom()
    source.words(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, source.words(4).tobytes())
        os._exit(0)
    os.close(write)
    theirs = os.read(read, 32)
    os.close(read)
    os.waitpid(child, 0)

    assert len(theirs) == 32
    assert theirs != source.words(4).tobytes()


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_each_example_is_drawn_with_the_rate_and_on_its_own(rate: float) -> None:
    source, n, steps = SystemRandom(), 200, 4000
    hits = np.zeros((steps, n), bool)
    for step in range(steps):
        hits[step, source.poisson_batch(n, rate)] = True

    sizes = hits.sum(axis=1)
    assert abs(sizes.mean() - n * rate) < SIX * math.sqrt(n * rate * (1 - rate) / steps)
    expected = n * rate * (1 - rate)
    assert abs(sizes.var() / expected - 1) < SIX * math.sqrt((2 + 1 / expected) / steps)
    each = hits.mean(axis=0)
    assert np.abs(each - rate).max() < 7 * math.sqrt(rate * (1 - rate) / steps) + 1e-9
    assert abs(np.corrcoef(hits[:-1].ravel(), hits[1:].ravel())[0, 1]) < SIX / math.sqrt(n * steps)


def test_rate_one_draws_everyone_and_no_examples_draw_nobody() -> None:
    source = SystemRandom()

    assert source.poisson_batch(7, 1.0).tolist() == list(range(7))
    assert source.poisson_batch(0, 0.5).tolist() == []


def test_a_tiny_rate_mostly_draws_nobody() -> None:
    assert sum(len(SystemRandom().poisson_batch(10, 1e-12)) for _ in range(100)) == 0
