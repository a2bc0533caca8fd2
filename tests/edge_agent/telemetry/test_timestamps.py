"""Times become whole microseconds, or are refused; nothing else happens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.telemetry.timestamps import MAX_TIME_US, TimeUnit, parse_text_time, parse_time


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("1970-01-01T00:00:01Z", "iso8601", 1_000_000),
        ("2020-03-09 10:14:33", "iso8601", 1_583_748_873_000_000),
        ("2020-03-09T11:14:33.000001+01:00", "iso8601", 1_583_748_873_000_001),
        (1_700_000_000, "s", 1_700_000_000_000_000),
        (1_700_000_000.25, "s", 1_700_000_000_250_000),
        (1_700_000_000_123, "ms", 1_700_000_000_123_000),
        (7, "us", 7),
    ],
)
def test_times_are_exact(value: Any, unit: TimeUnit, expected: int) -> None:
    assert parse_time(value, unit) == expected


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (5, "iso8601"), ("tomorrow", "iso8601"), ("", "iso8601"), ("x" * 1000, "iso8601"), (None, "s"), (True, "s"),
        ("5", "s"), (-1, "s"), (1e300, "s"), (float("inf"), "s"), (float("nan"), "s"), (10**400, "us"), ([1], "ms"),
        ("1900-01-01T00:00:00Z", "iso8601"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_a_value_error(value: Any, unit: TimeUnit) -> None:
    with pytest.raises(ValueError):
        parse_time(value, unit)


@given(st.integers(0, MAX_TIME_US // 10**6))
def test_all_notations_of_a_second_agree(second: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)

    assert parse_time(moment.isoformat(), "iso8601") == second * 10**6
    assert parse_time(second, "s") == parse_text_time(str(second), "s") == second * 10**6
    assert parse_time(float(second), "s") == parse_text_time(f"{second}.0", "s") == second * 10**6
    assert (
        parse_text_time(moment.strftime("%Y-%m-%d %H:%M:%S").zfill(19), "%Y-%m-%d %H:%M:%S") == second * 10**6
    )


@given(st.text() | st.floats() | st.integers() | st.none() | st.booleans())
def test_nothing_raises_but_value_errors(value: Any) -> None:
    for unit in ("iso8601", "s", "ms", "us"):
        try:
            assert 0 <= parse_time(value, unit) <= MAX_TIME_US
        except ValueError:
            continue
