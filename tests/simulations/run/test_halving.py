"""Which trials a sweep has and who goes on: every combination can come up, and the best one wins."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.simulations.run.halving import combinations, ranked, rung_rounds, survivors
from hedgerow.simulations.scenario.spec import SweepSpec


def spaces(sizes: list[int], trials: int) -> SweepSpec:
    return SweepSpec(fields={f"f{n}": list(range(size)) for n, size in enumerate(sizes)}, trials=trials)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(2, 40), st.integers(0, 99))
def test_trials_are_different_combinations_and_as_many_as_there_may_be(
    sizes: list[int], trials: int, seed: int
) -> None:
    drawn = [tuple(one.values()) for one in combinations(spaces(sizes, trials), seed)]

    assert len(drawn) == len(set(drawn)) == min(trials, math.prod(sizes))
    assert set(drawn) <= set(itertools.product(*(range(size) for size in sizes)))
    # In the order as written: the last field changes fastest.
    assert drawn == sorted(drawn)


def test_of_millions_of_combinations_all_values_of_all_fields_come_up() -> None:
    """Ten to the eighth: the first field changes slowest, and its later values must come up too."""
    drawn = combinations(spaces([10] * 8, 2000), 3)

    assert len({tuple(one.values()) for one in drawn}) == 2000
    for field in drawn[0]:
        counts = np.bincount([one[field] for one in drawn], minlength=10)
        # Binomial(2000, 0.1): its standard deviation is 13.4.
        assert np.abs(counts - 200).max() < 6 * 13.4, field


def test_more_combinations_than_a_machine_word_counts_are_no_matter() -> None:
    drawn = combinations(spaces([1000] * 9, 50), 1)

    assert len({tuple(one.values()) for one in drawn}) == 50
    assert len({one["f0"] for one in drawn}) > 30
    assert drawn == combinations(spaces([1000] * 9, 50), 1) != combinations(spaces([1000] * 9, 50), 2)


def test_where_nearly_all_are_drawn_none_comes_twice() -> None:
    drawn = combinations(spaces([10_001], 10_000), 1)

    assert len({one["f0"] for one in drawn}) == 10_000


SCORES = st.dictionaries(
    st.integers(0, 50), st.floats(-10, 10) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=20
)


@given(SCORES, st.integers(2, 10), st.booleans())
def test_nobody_goes_on_who_is_worse_than_one_that_stays_behind(
    scores: dict[int, float], keep_one_of: int, higher: bool
) -> None:
    left = survivors(scores, keep_one_of, higher)
    gone = [scores[n] for n in scores if n not in left]
    sign = 1 if higher else -1

    assert len(left) == max(1, len(scores) // keep_one_of)
    assert left == sorted(left)
    for n in left:
        if math.isnan(scores[n]):
            assert all(math.isnan(value) for value in gone)
        else:
            assert all(math.isnan(value) or sign * value <= sign * scores[n] for value in gone)


@given(SCORES, st.booleans())
def test_the_order_of_trials_is_whole_and_turns_around_with_the_metric(
    scores: dict[int, float], higher: bool
) -> None:
    order = ranked(scores, higher)

    assert sorted(order) == sorted(scores)
    known = [n for n in order if not math.isnan(scores[n])]
    assert order[: len(known)] == known
    values = [scores[n] for n in known]
    assert values == sorted(values, reverse=higher)


@settings(max_examples=50)
@given(st.integers(2, 300), st.integers(2, 10), st.integers(1, 20), st.integers(0, 200).map(lambda n: n + 20))
def test_halving_ends_with_one_that_got_all_rounds(
    trials: int, keep_one_of: int, first: int, rounds: int
) -> None:
    spec = SweepSpec(fields={}, first_rounds=first, keep_one_of=keep_one_of)
    left, rung, reached, before = list(range(trials)), 0, 0, 0
    while reached < rounds:
        reached = rung_rounds(spec, rung, len(left), rounds)
        assert before < reached <= rounds
        # Rung by rung as many rounds more as trials fewer, so that each costs about the same.
        assert reached == rounds or reached == first * keep_one_of**rung
        left = survivors(dict.fromkeys(left, 0.0), keep_one_of, higher_is_better=True)
        before, rung = reached, rung + 1
    assert rung <= math.log(rounds / first, keep_one_of) + 2
