"""Sums that no order shows in, held to exact fractions and to the server's own sum."""

from __future__ import annotations

from contextlib import AbstractContextManager
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.aggregation.algorithm import fedavg
from hedgerow.server.aggregation.streaming import StreamingSum
from hedgerow.simulations.lean.lattice import BLOCK, MAX_VALUE, Adder, as_doubles, exponent_for, unguarded


def summed(rows: np.ndarray, weights: list[float], parts: list[int]) -> np.ndarray:
    """Return the sum of ``rows`` added in calls of so many rows."""
    exponent, total, adder = exponent_for(weights), np.zeros(rows.shape[1], np.int64), Adder()
    for first, last in pairwise([0, *np.cumsum(parts)]):
        adder.add(total, rows[first:last], weights[first:last], exponent)
    return as_doubles(total, exponent)


def rows_of(count: int, n: int, scale: float = 0.01, seed: int = 0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((count, n))).astype(np.float32)


@pytest.mark.parametrize("n", [1, 63, 1000, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
def test_the_same_bits_come_out_however_terms_are_ordered_and_grouped(n: int) -> None:
    rows, weights = rows_of(9, n), [1.0, 17.0, 0.3, 5.0, 1e5, 2.0, 1 / 3, 40.0, 7.0]
    order = np.random.default_rng(1).permutation(9)
    one_by_one = summed(rows, weights, [1] * 9)
    together = summed(rows[order], [weights[i] for i in order], [5, 4])
    np.testing.assert_array_equal(one_by_one, together)


def test_sum_is_within_half_a_step_a_term_of_the_exact_one() -> None:
    rows, weights = rows_of(7, 20), [3.0, 1.0, 250.0, 0.25, 8.0, 0.1, 64.0]
    step = Fraction(1, 2) ** exponent_for(weights)
    got = summed(rows, weights, [7])
    for column in range(20):
        terms = zip(weights, rows[:, column].tolist(), strict=True)
        exact = sum((Fraction(weight) * Fraction(value) for weight, value in terms), Fraction())
        error = abs(Fraction(float(got[column])) - exact)
        assert error <= 7 * step / 2 + abs(exact) / 2**52


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_mean_is_that_of_the_servers_sum(weighting: str) -> None:
    rows = rows_of(100, 500)
    rng = np.random.default_rng(5)
    weights = [1.0 if weighting == "uniform" else float(w) for w in rng.integers(1, 100_000, 100)]
    server = StreamingSum(fedavg(), 500, "float32", None, b"")
    for row, weight in zip(rows, weights, strict=True):
        server.add(Update("d", [memoryview(row.tobytes())], weight))
    mean = (summed(rows, weights, [60, 40]) / sum(weights)).astype(np.float32)
    released = server.release(np.zeros(500, np.float32)).model
    np.testing.assert_allclose(mean, released, rtol=1e-6, atol=1e-6 * np.abs(released).max())


def test_the_largest_values_of_ten_thousand_heavy_devices_do_not_overflow() -> None:
    count, weight = 10_000, 1e5
    row = np.array([[MAX_VALUE, -MAX_VALUE, 1.0]], np.float32)
    exponent, total, adder = exponent_for([weight] * count), np.zeros(3, np.int64), Adder()
    for _ in range(count):
        adder.add(total, row, [weight], exponent)
    exact = count * weight * np.array([MAX_VALUE, -MAX_VALUE, 1.0])
    np.testing.assert_array_equal(as_doubles(total, exponent), exact)


def test_fast_and_slow_rounding_agree_where_both_apply() -> None:
    # One large value in a block makes all of it take the slow way; the others must not notice.
    small = rows_of(1, 200)
    large = small.copy()
    large[0, -1] = MAX_VALUE
    fast, slow = summed(small, [1.0], [1]), summed(large, [1.0], [1])
    np.testing.assert_array_equal(fast[:-1], slow[:-1])
    assert slow[-1] == MAX_VALUE


def test_weight_zero_adds_nothing_and_no_weight_at_all_is_zero() -> None:
    rows = rows_of(2, 10)
    np.testing.assert_array_equal(summed(rows, [2.0, 0.0], [2]), summed(rows[:1], [2.0], [1]))
    np.testing.assert_array_equal(summed(rows, [0.0, 0.0], [2]), np.zeros(10))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e-13, 1e16])
def test_weights_that_no_lattice_fits_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="a weight is 0 or between"):
        exponent_for([1.0, weight])


def test_guard_is_held_for_each_block_while_it_changes() -> None:
    held: list[int] = []

    def guard(block: int) -> AbstractContextManager[object]:
        held.append(block)
        return unguarded(block)

    Adder().add(np.zeros(2 * BLOCK + 5, np.int64), rows_of(1, 2 * BLOCK + 5), [1.0], 40, guard)
    assert held == [0, 1, 2]


@pytest.mark.parametrize("scale", [0.01, 300.0, 3e5])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_knowing_how_large_values_are_changes_no_bit(scale: float, count: int) -> None:
    rows, weights = rows_of(count, BLOCK + 77, scale), [1.0 + n for n in range(count)]
    exponent = exponent_for(weights)
    known, looked = np.zeros(BLOCK + 77, np.int64), np.zeros(BLOCK + 77, np.int64)
    bounds = [float(np.abs(row).max()) for row in rows]
    for _ in range(2):
        Adder().add(known, rows, weights, exponent, bounds=bounds)
        Adder().add(looked, rows, weights, exponent)
    exact = [
        2
        * sum(
            round(Fraction(w) * Fraction(float(v)) * 2**exponent)
            for w, v in zip(weights, column, strict=True)
        )
        for column in rows[:, :50].T
    ]
    np.testing.assert_array_equal(known, looked)
    assert known[:50].tolist() == exact
