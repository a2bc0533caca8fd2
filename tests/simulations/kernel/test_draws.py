"""The randomness of simulated privacy: normal draws that are normal, and a stream that repeats itself for its key alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hedgerow.simulations.kernel.draws import KeyedDraws, job_stream, noise_words, normal_draws

MANY = 1_000_000


def draws(key: tuple[int, ...], count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    found = np.full((1, count), np.nan, np.float32)
    normal_draws(noise_words(job_stream(key), count)[None], 1.0, found)
    return found.reshape(-1)


def test_draws_have_the_moments_and_tails_of_a_normal_distribution() -> None:
    x = draws((1, 2, 3), MANY).astype(np.float64)

    assert x.mean() == pytest.approx(0, abs=6 / math.sqrt(MANY))
    assert x.var() == pytest.approx(1, abs=6 * math.sqrt(2 / MANY))
    assert (x**3).mean() == pytest.approx(0, abs=6 * math.sqrt(15 / MANY))
    assert (x**4).mean() == pytest.approx(3, abs=6 * math.sqrt(96 / MANY))
    for z in (0.5, 1.0, 2.0, 3.0, 4.0):
        share = math.erfc(z / math.sqrt(2))
        assert (np.abs(x) > z).mean() == pytest.approx(share, abs=6 * math.sqrt(share / MANY))
    assert np.isfinite(x).all()


def test_the_two_halves_of_a_pair_are_independent() -> None:
    x = draws((4,), MANY)
    half = MANY // 2
    for left, right in ((x[:half], x[half:]), (x[:half] ** 2, x[half:] ** 2), (x[:-1], x[1:])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 6 / math.sqrt(half)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_any_number_of_draws_can_be_had(count: int) -> None:
    assert draws((1,), count).shape == (count,)


def test_words_at_both_ends_give_finite_draws() -> None:
    words = np.array([[0, 2**32 - 1, 0, 2**32 - 1]], np.uint32)

    found = np.full((1, 4), np.nan, np.float32)
    normal_draws(words, 1.0, found)

    assert np.isfinite(found).all()
    assert np.abs(found).max() == pytest.approx(math.sqrt(2 * 32 * math.log(2)), rel=1e-5)


@pytest.mark.parametrize("count", [1, 6, 7, 40, 41])
def test_draws_are_the_pairs_of_the_formula_however_many_are_made_at_a_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = np.stack([noise_words(job_stream((row,)), count) for row in (1, 2)])
    sigma = np.array([[0.5], [3.0]], np.float32)
    half = words.shape[1] // 2
    radius = np.sqrt(-2 * np.log((words[:, :half] + 1.0) / 2**32)) * sigma
    angle = words[:, half:] * (2 * math.pi / 2**32)
    wanted = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]

    for stretch in (2, 6, 1000):
        monkeypatch.setattr("hedgerow.simulations.kernel.draws._STRETCH", stretch)
        found = np.full((2, count), np.nan, np.float32)
        normal_draws(words, sigma, found)
        assert found == pytest.approx(wanted, abs=2e-5)


def test_the_stream_is_the_keys_alone() -> None:
    assert np.array_equal(draws((1, 2), 100), draws((1, 2), 100))
    assert not np.array_equal(draws((1, 2), 100), draws((2, 1), 100))
    assert not np.array_equal(draws((12,), 100), draws((1, 2), 100))


def test_the_trainers_view_gives_a_models_worth_a_step_in_order() -> None:
    order = np.array([3, 1, 0, 2, 9, 8, 7, 4, 5, 6])
    keyed = KeyedDraws((5, 6), order)
    stream = job_stream((5, 6))
    for _ in range(3):
        drawn = keyed.poisson_batch(50, 0.3)
        parts = np.concatenate([keyed.gaussian(7, 2.0), keyed.gaussian(3, 2.0)])

        assert np.array_equal(drawn, stream.poisson_batch(50, 0.3))
        wanted = np.empty((1, 10), np.float32)
        normal_draws(noise_words(stream, 10)[None], 2.0, wanted)
        assert parts[order] == pytest.approx(wanted[0])


def test_a_batch_has_each_example_with_the_rates_probability() -> None:
    stream = job_stream((8,))
    counts = np.zeros(40)
    for _ in range(2000):
        counts[stream.poisson_batch(40, 0.2)] += 1

    assert np.abs(counts / 2000 - 0.2).max() < 6 * math.sqrt(0.16 / 2000)


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="noise key"):
        job_stream(())
