"""The residual chart's arithmetic, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared.scoring import chart


def test_memory_weights_add_up_to_one_and_fall_by_e_over_the_memory() -> None:
    weights = chart.memory_weights(30, 10.0)

    assert weights.sum() == pytest.approx(1.0)
    assert weights[-1] / weights[-11] == pytest.approx(np.e)


def test_smoothing_a_constant_gives_the_constant() -> None:
    residual = np.full((12, 3), 2.5)

    assert chart.smooth(residual, chart.memory_weights(12, 4.0)) == pytest.approx([2.5, 2.5, 2.5])


def test_deviations_count_standard_deviations_and_leave_out_unwatched_channels() -> None:
    apart = chart.deviations(
        np.array([3.0, 5.0]), np.array([1.0, 1.0]), np.array([0.5, 2.0]), np.array([1.0, 0.0])
    )

    assert apart.tolist() == [4.0, 0.0]


def test_a_channel_that_never_moves_keeps_the_floor_as_its_spread() -> None:
    _, sigma = chart.describe(np.zeros((20, 1)))

    assert sigma.tolist() == [chart.SIGMA_FLOOR]


def test_cross_validation_scores_a_stretch_by_the_others() -> None:
    rng = np.random.default_rng(0)
    smoothed = rng.normal(0, 1, (400, 1))
    smoothed[:100] += 5

    scores = chart.cross_validated(smoothed, np.ones(1))
    mean, sigma = chart.describe(smoothed)
    inside = chart.deviations(smoothed, mean, sigma, np.ones(1)).max(axis=1)

    assert scores[:100].mean() == pytest.approx(5, abs=0.3)
    assert inside[:100].mean() < 2


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=12))
def test_shares_add_up_to_one_whatever_the_deviations(values: list[float]) -> None:
    share = chart.shares(np.array(values))

    assert share.min() >= 0
    assert share.sum() == pytest.approx(1.0)


def test_following_never_leaves_the_leash() -> None:
    mean, home = np.array([0.0]), np.array([0.0])
    for _ in range(1000):
        mean = chart.followed(mean, np.array([100.0]), 0.1, home, np.array([3.0]))

    assert mean.tolist() == [3.0]


def test_dispersion_is_the_weighted_deviation_s_logarithm_with_a_floor() -> None:
    rng = np.random.default_rng(1)
    residual, weights = rng.normal(3, 2, (500, 1)), chart.memory_weights(500, 200.0)

    found = chart.dispersion(residual, weights)

    expected = np.sqrt(np.cov(residual[:, 0], aweights=weights, ddof=0) + chart.DISPERSION_FLOOR**2)
    assert np.exp(found) == pytest.approx([expected])
    still = chart.dispersion(np.full((30, 2), 7.0), chart.memory_weights(30, 10.0))
    assert np.exp(still) == pytest.approx([chart.DISPERSION_FLOOR] * 2)


def test_twice_and_half_the_noise_are_equally_far_apart() -> None:
    residual, weights = np.random.default_rng(2).normal(0, 10, (40, 1)), chart.memory_weights(40, 10.0)

    middle, twice, half = (float(chart.dispersion(residual * f, weights)[0]) for f in (1.0, 2.0, 0.5))

    assert twice - middle == pytest.approx(np.log(2), rel=1e-2)
    assert middle - half == pytest.approx(np.log(2), rel=1e-2)


def test_held_out_spread_is_the_deviation_for_steady_readings_and_wider_for_wandering_ones() -> None:
    rng = np.random.default_rng(3)
    steady = rng.normal(5, 2, (4000, 1))
    wandering = rng.normal(0, 0.1, (400, 1)) + np.linspace(0, 4, 400)[:, None]

    mean, spread = chart.describe_held_out(steady)
    _, whole = chart.describe(wandering)
    _, wide = chart.describe_held_out(wandering)

    assert mean == pytest.approx(steady.mean(axis=0))
    assert spread == pytest.approx([2.0], rel=0.03)
    # a line from 0 to 4: the quarters' means are 0.5, 1.5, 2.5, 3.5; each is judged by the mean of the other three
    by_hand = np.sqrt(np.mean([0.01 + 1 / 12 + ((m - 2) * 4 / 3) ** 2 for m in (0.5, 1.5, 2.5, 3.5)]))
    assert wide == pytest.approx([by_hand], rel=0.02)
    assert wide > 1.2 * whole


def test_held_out_spread_keeps_the_floor() -> None:
    assert chart.describe_held_out(np.zeros((20, 1)))[1].tolist() == [chart.SIGMA_FLOOR]


def test_the_wander_rate_is_the_variance_of_a_random_walk_s_step_whatever_the_scatter() -> None:
    rng = np.random.default_rng(4)
    rates = []
    for _ in range(300):
        walk = np.cumsum(rng.normal(0, 0.1, (400, 1)), axis=0)
        rates.append(chart.wander_rate(walk + rng.normal(0, 0.5, (400, 1)))[0])

    # the scatter's variance is 25 steps' of the walk, and adds nothing to the rate
    assert np.mean(rates) == pytest.approx(0.01, rel=0.25)


def test_steady_readings_wander_nowhere_to_speak_of() -> None:
    rng = np.random.default_rng(5)

    rate = chart.wander_rate(rng.normal(0, 1, (400, 50)))

    assert rate.min() == 0
    assert rate.mean() * 200 < 0.2


def test_wander_widens_every_stretch_s_deviations_alike() -> None:
    rng = np.random.default_rng(6)
    smoothed, watched = rng.normal(0, 1, (4000, 2)), np.ones(2)

    plain = chart.cross_validated(smoothed, watched)
    wide = chart.cross_validated(smoothed, watched, wander=np.array([3.0, 3.0]))

    assert plain / wide == pytest.approx(2.0, rel=0.05)
    assert chart.widened(np.array([3.0]), np.array([16.0])).tolist() == [5.0]
