"""Single readings are judged by range, order and rate."""

from __future__ import annotations

from tests.support.telemetry import T0_US, channel

from hedgerow.edge_agent.telemetry.rules import ReadingRules
from hedgerow.shared.profile import WindowSpec

SECOND = 1_000_000


def rules(**changes: object) -> ReadingRules:
    return ReadingRules(
        [channel("a", minimum=-10.0, maximum=10.0, nominal=0.0, **changes)], WindowSpec(max_hold_rows=3)
    )


def feed(judge: ReadingRules, second: float, value: float) -> str | None:
    time_us = T0_US + round(second * SECOND)
    refusal = judge.judge(0, time_us, value)
    if refusal is None:
        judge.remember(0, time_us, value)
        return None
    return refusal.reason


def test_the_bounds_belong_to_the_range() -> None:
    judge = rules()

    assert [feed(judge, n, value) for n, value in enumerate([-10.0, 10.0, 10.001, -10.001, 1e30])] == [
        None, None, "out-of-range", "out-of-range", "out-of-range",
    ]  # fmt: skip


def test_the_same_time_twice_is_a_duplicate_and_an_older_one_out_of_order() -> None:
    judge = rules()

    assert [feed(judge, second, 1.0) for second in (5, 5, 4, 6)] == [None, "duplicate", "out-of-order", None]


def test_a_step_is_refused_until_the_last_value_is_too_old_to_compare() -> None:
    judge = rules(max_step=1.0)

    assert feed(judge, 0, 0.0) is None
    assert [feed(judge, second, 9.0) for second in (1, 2, 3, 4)] == ["step"] * 4
    assert feed(judge, 5, 9.0) is None
    assert feed(judge, 6, 8.5) is None


def test_a_pause_allows_a_proportional_step() -> None:
    judge = rules(max_step=1.0)

    assert feed(judge, 0, 0.0) is None
    assert feed(judge, 3, 3.0) is None
    assert feed(judge, 5, 5.1) == "step"


def test_a_refused_reading_is_not_remembered() -> None:
    judge = rules(max_step=1.0)

    assert feed(judge, 0, 0.0) is None
    assert feed(judge, 1, 5.0) == "step"
    assert feed(judge, 2, 0.5) is None


def test_after_a_reset_nothing_is_compared() -> None:
    judge = rules(max_step=1.0)
    assert feed(judge, 10, 0.0) is None

    judge.reset()

    assert feed(judge, 0, 9.0) is None
