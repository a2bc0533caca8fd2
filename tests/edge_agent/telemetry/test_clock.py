"""Times far from now or far from the stream are believed only with reason."""

from __future__ import annotations

import pytest
from tests.support.telemetry import T0_S, T0_US

from hedgerow.edge_agent.telemetry.clock import CONFIRMATIONS, MAX_EARLY, JumpFilter, judge_times
from hedgerow.edge_agent.telemetry.reading import Row
from hedgerow.shared.profile import ClockSpec, WindowSpec


def row(second: float) -> Row:
    return Row(T0_US + round(second * 1e6), ((0, 1.0),))


def seconds(rows: tuple[Row, ...]) -> list[float]:
    return [(one.time_us - T0_US) / 1e6 for one in rows]


def passed(jumps: JumpFilter, *times: float) -> list[float]:
    return [second for time in times for second in seconds(jumps.pass_on(row(time)).rows)]


def test_rows_near_the_stream_pass_at_once() -> None:
    jumps = JumpFilter(WindowSpec(length=10))

    assert passed(jumps, 0, 1, 2, 7, 6, 8, 3) == [0, 1, 2, 7, 6, 8, 3]


def test_one_wild_time_is_dropped_and_the_stream_goes_on() -> None:
    jumps = JumpFilter(WindowSpec(length=10))

    assert passed(jumps, 0, 1, 9_999_999, 2, 3) == [0, 1, 2, 3]
    assert passed(jumps, -9_999_999, 4) == [4]


def test_a_jump_that_others_confirm_is_believed_and_nothing_is_lost() -> None:
    jumps = JumpFilter(WindowSpec(length=10))
    assert passed(jumps, 0, 1) == [0, 1]

    lines = [jumps.pass_on(row(7200 + n)) for n in range(CONFIRMATIONS)]

    assert [line.anew for line in lines] == [False] * (CONFIRMATIONS - 1) + [True]
    assert seconds(lines[-1].rows) == [7200 + n for n in range(CONFIRMATIONS)]
    assert passed(jumps, 7203) == [7203]


def test_a_clock_set_back_is_followed() -> None:
    jumps = JumpFilter(WindowSpec(length=10))

    assert passed(jumps, 10_000, 0, 1, 2, 3) == [10_000, 0, 1, 2, 3]


def test_a_pause_no_longer_than_a_hold_is_no_jump() -> None:
    jumps = JumpFilter(WindowSpec(length=10, max_hold_rows=20))

    assert passed(jumps, 0, 20, 40) == [0, 20, 40]


def test_at_a_high_rate_a_pause_of_seconds_is_no_jump() -> None:
    jumps = JumpFilter(WindowSpec(length=256, rate_hz=1000.0))

    assert passed(jumps, 0, 0.001, 2, 2.001, 6) == [0, 0.001, 2, 2.001, 6]


def test_a_row_that_came_early_waits_for_the_stream_to_reach_it() -> None:
    jumps = JumpFilter(WindowSpec(length=10))

    assert passed(jumps, 0, 300, 1, 2, 3) == [0, 1, 2, 3]
    assert passed(jumps, *range(4, 300), 301)[-3:] == [299, 300, 301]


def test_early_rows_are_bounded_and_those_dropped_are_counted() -> None:
    jumps = JumpFilter(WindowSpec(length=10))
    jumps.pass_on(row(0))

    dropped = sum(jumps.pass_on(row(n * 100_000)).dropped for n in range(1, 31))

    assert len(jumps.held_back.early) == MAX_EARLY
    assert len(jumps.held_back.streak) == 1
    assert dropped == 30 - MAX_EARLY - 1
    assert jumps.abandon() == MAX_EARLY + 1


def test_rows_before_a_confirmed_jump_that_belong_to_it_come_first() -> None:
    jumps = JumpFilter(WindowSpec(length=10))

    assert passed(jumps, 0, 1000, 1, 1001, 1002, 1003) == [0, 1, 1000, 1001, 1002, 1003]


def test_a_sparse_stream_is_followed_two_rows_behind() -> None:
    jumps = JumpFilter(WindowSpec(length=1))

    assert passed(jumps, *range(0, 200, 20)) == list(range(0, 200, 20))


@pytest.mark.parametrize(("skew_s", "kept"), [(0, True), (-30, True), (30, True), (31, False), (-31, False)])
def test_skew_is_bounded_on_both_sides(skew_s: float, kept: bool) -> None:
    rows, refusals = judge_times([row(skew_s)], True, T0_US, ClockSpec(max_skew_s=30))

    assert bool(rows) is kept
    assert [refusal.reason for refusal in refusals] == ([] if kept else ["clock-skew"])


def test_without_a_bound_any_time_is_taken() -> None:
    rows, _ = judge_times([row(-1e8), row(1e8)], True, T0_US, ClockSpec())

    assert len(rows) == 2


def test_a_clock_in_1970_judges_no_skew() -> None:
    rows, refusals = judge_times([row(0)], True, 86_400_000_000, ClockSpec(max_skew_s=30))

    assert len(rows) == 1
    assert refusals == []


@pytest.mark.parametrize(("policy", "kept"), [("keep", 1), ("drop", 0)])
def test_undated_readings_in_1970_follow_the_profile(policy: str, kept: int) -> None:
    clock = ClockSpec(undated=policy)  # type: ignore[arg-type]

    rows, refusals = judge_times([row(0)], False, 86_400_000_000, clock)

    assert len(rows) == kept
    assert len(refusals) == 1 - kept
    assert judge_times([row(0)], False, T0_S * 1_000_000, clock)[0]
