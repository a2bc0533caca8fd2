"""Generators made together draw what numpy's own do, bit for bit, for every seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.simulations.kernel.batches import epoch_orders, orders_of
from hedgerow.simulations.kernel.seeds import FEW, generators

WORD = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
ANY = st.one_of(WORD, st.integers(2**32 - 2, 2**32 + 2), st.integers(0, 2**63 - 1))


def numpys(seed: tuple[int, ...], n: int) -> list[list[int]]:
    """Return three epochs' orders as the trainer draws them."""
    order = np.random.default_rng(seed)
    order.integers(2**63)
    return [order.permutation(n).tolist() for _ in range(3)]


def orders(seeds: list[tuple[int, ...]], n: int) -> list[list[list[int]]]:
    return [[found.tolist() for found in orders_of(one, n, 3)] for one in generators(seeds)]


@given(length=st.integers(1, 9), data=st.data())
def test_many_seeds_of_one_length(length: int, data: st.DataObject) -> None:
    one = st.tuples(*[WORD] * length)
    seeds = data.draw(st.lists(one, min_size=FEW + 1, max_size=FEW + 5))

    assert orders(seeds, 20) == [numpys(seed, 20) for seed in seeds]


@given(
    seeds=st.lists(st.lists(ANY, min_size=1, max_size=5).map(tuple), max_size=FEW + 4), n=st.integers(0, 60)
)
def test_seeds_of_any_size_and_number(seeds: list[tuple[int, ...]], n: int) -> None:
    assert orders(seeds, n) == [numpys(seed, n) for seed in seeds]
    for seed in seeds[:1]:
        assert [found.tolist() for found in epoch_orders(seed, n, 3)] == numpys(seed, n)


def test_half_a_word_that_one_seed_left_is_not_the_next_ones() -> None:
    seeds = [(5, number) for number in range(FEW + 2)]
    wanted = [np.random.default_rng(seed).integers(100, size=3, dtype=np.uint32).tolist() for seed in seeds]

    assert [one.integers(100, size=3, dtype=np.uint32).tolist() for one in generators(seeds)] == wanted


def test_a_seed_that_numpy_refuses_is_refused_alone_and_among_many() -> None:
    for count in (1, FEW + 3):
        with pytest.raises(ValueError, match="non-negative"):
            list(generators([(1, 2)] * (count - 1) + [(1, -1)]))
