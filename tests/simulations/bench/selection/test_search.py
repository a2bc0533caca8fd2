"""The rule by which a candidate is chosen: the false alarm limit, the largest F1, and what counts as simpler."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hedgerow.simulations.bench.selection.charts import Judged
from hedgerow.simulations.bench.selection.search import FACTORS, RELEASES, Candidate, Options, choose, courses

BASE: dict[str, Any] = {"rows": 32, "hidden": 32, "code": 8, "clip": 2.0, "memory_rows": 10.0}


def candidate(f1: float, far: float, **options: Any) -> Candidate:
    judged = Judged((f1 + 0.1, f1 - 0.1), (far, 90.0))
    return Candidate(Options(**{**BASE, **options}), {"short": judged, "long": Judged((f1, f1), (0.0, 0.0))})


def test_the_largest_f1_below_the_false_alarm_limit_is_chosen() -> None:
    chosen, limit = choose([candidate(0.9, 12.1), candidate(0.8, 11.9, factor=1.2), candidate(0.7, 1.0)])

    assert chosen.options.factor == 1.2
    assert limit == 12.0


def test_a_limit_that_nobody_keeps_rises_until_one_does() -> None:
    chosen, limit = choose([candidate(0.9, 17.0), candidate(0.6, 15.5, factor=1.2)])

    assert chosen.options.factor == 1.2
    assert limit == 16.0


def test_among_equals_the_one_with_fewer_mechanisms_is_chosen() -> None:
    many = candidate(0.804, 5.0, follow_rows=100.0, release=0.5, drift_ratio=0.5, dispersion=True)
    few = candidate(0.800, 5.0, spread="held-out")

    assert choose([many, few])[0] is few
    assert many.options.mechanisms() == 4 and few.options.mechanisms() == 1
    assert candidate(0.8, 5.0, wander_rows=200.0).options.mechanisms() == 1
    assert choose([many, candidate(0.798, 5.0)])[0] is many


def test_then_smaller_windows_networks_and_memories_and_higher_thresholds() -> None:
    small = candidate(0.8, 5.0, rows=16)

    assert choose([candidate(0.8, 5.0), small])[0] is small
    assert choose([candidate(0.8, 5.0, hidden=64), candidate(0.8, 5.0)])[0].options.hidden == 32
    assert choose([candidate(0.8, 5.0, memory_rows=20.0), candidate(0.8, 5.0)])[0].options.memory_rows == 10
    assert choose([candidate(0.8, 5.0), candidate(0.8, 5.0, factor=1.45)])[0].options.factor == 1.45


def test_public_and_fixed_input_are_the_simpler_among_equals() -> None:
    plain = candidate(0.8, 5.0, scaling="public")

    assert choose([candidate(0.8, 5.0), plain])[0] is plain
    assert choose([candidate(0.804, 5.0, scaling="public", centring="window"), plain])[0] is plain


def test_f1_of_one_family_decides_and_false_alarms_of_all_limit() -> None:
    long = candidate(0.7, 5.0)  # its long replays have the F1 asked for, its short ones the same on average
    short = Candidate(
        long.options, {"short": Judged((0.9, 0.9), (5.0, 9.0)), "long": Judged((0.6, 0.6), (0.0, 0.0))}
    )
    false = Candidate(
        long.options, {"short": Judged((0.1, 0.1), (13.0, 9.0)), "long": Judged((1.0, 1.0), (0.0, 0.0))}
    )

    assert choose([long, short, false])[0] is short
    assert choose([long, short, false], "long")[0] is long
    assert choose([short, long], "none of them")[0] is short


def test_courses_are_every_factor_following_and_hold_once() -> None:
    made = list(courses(Options(**BASE)))

    assert len(made) == len(set(made)) == (1 + 3 * 2 * 2) * len(FACTORS) * len(RELEASES)


@pytest.mark.parametrize("candidates", [[], [candidate(0.9, math.nan)], [candidate(0.9, math.nan)] * 3])
def test_where_nobody_has_a_false_alarm_rate_the_search_for_a_limit_ends(candidates: list[Candidate]) -> None:
    with pytest.raises(ValueError, match=f"none of {len(candidates)} candidates has a false alarm rate"):
        choose(candidates)


def test_a_candidate_that_always_alarms_is_chosen_where_there_is_no_other() -> None:
    always, limit = candidate(0.2, 100.0), 100.0

    assert choose([always, candidate(0.9, math.nan)]) == (always, limit)
