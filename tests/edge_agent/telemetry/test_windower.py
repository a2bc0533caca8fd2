"""Readings become windows on a fixed grid; an independent, slow account of the rules must agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.telemetry import T0_S

from hedgerow.edge_agent.telemetry.windower import Window, Windower
from hedgerow.shared.profile import WindowSpec

SECOND = 1_000_000
# A multiple of every stride used here, so that row numbers below start at zero of the grid.
BASE = T0_S - T0_S % 420


def windower(n_channels: int = 1, **changes: Any) -> Windower:
    return Windower(WindowSpec(**{"length": 3, "stride": 1, "late_rows": 0} | changes), n_channels)


def feed(into: Windower, rows: dict[float, list[float | None]], *, final: bool = True) -> list[Window]:
    windows: list[Window] = []
    for second, values in rows.items():
        for position, value in enumerate(values):
            if value is not None:
                into.put(position, BASE * SECOND + round(second * SECOND), value)
        windows += into.take()
    return windows + (list(into.take(final=True)) if final else [])


def contents(windows: list[Window]) -> list[list[float]]:
    return [window.array[:, 0].tolist() for window in windows]


def test_a_window_is_float32_rows_by_channels_with_its_times() -> None:
    (window,) = feed(windower(2), {n: [n, -n] for n in range(3)})

    assert window.array.dtype == np.float32
    assert window.array.tolist() == [[0, 0], [1, -1], [2, -2]]
    assert (window.start_us, window.end_us) == (BASE * SECOND, (BASE + 2) * SECOND)
    assert window.valid == 1.0


def test_windows_overlap_by_their_stride_and_keep_to_the_grid() -> None:
    rows: dict[float, list[float | None]] = {n: [float(n)] for n in range(1, 12)}

    assert contents(feed(windower(stride=1), rows))[:2] == [[1, 2, 3], [2, 3, 4]]
    assert contents(feed(windower(stride=3), rows)) == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert contents(feed(windower(stride=5), rows)) == [[2, 3, 4], [7, 8, 9]]


def test_a_complete_row_closes_at_once() -> None:
    follow = windower(2)

    assert len(feed(follow, {0: [1, 1], 1: [1, 1], 2: [1, 1]}, final=False)) == 1


def test_an_incomplete_row_waits_for_late_readings() -> None:
    follow = windower(2, late_rows=1)

    assert feed(follow, {0: [0, 0], 1: [1, 1], 2: [2, None], 2.9: [3, None]}, final=False) == []
    assert contents(feed(follow, {2.1: [None, 2]}, final=False)) == [[0, 1, 2]]


def test_a_missing_row_is_held_and_lowers_validity() -> None:
    (window,) = feed(windower(length=4, min_valid=0.5), {0: [5], 1: [6], 3: [8]})

    assert window.array[:, 0].tolist() == [5, 6, 6, 8]
    assert window.valid == 0.75


def test_a_window_of_low_validity_is_counted_not_given() -> None:
    follow = windower(length=4, min_valid=0.9)

    assert feed(follow, {0: [5], 1: [6], 3: [8]}) == []
    assert follow.counts["low-validity"] == 1


@pytest.mark.parametrize(("gap", "spans"), [(2, True), (3, False)])
def test_no_window_spans_a_gap_longer_than_the_hold(gap: int, spans: bool) -> None:
    follow = windower(length=3, max_hold_rows=2, min_valid=0.0)

    windows = feed(follow, {0: [0], 1: [1], 2: [2], **{3 + gap + n: [100 + n] for n in range(3)}})

    mixed = [window for window in contents(windows) if min(window) < 50 < max(window)]
    assert bool(mixed) is spans
    assert contents(windows)[-1] == [100, 101, 102]
    assert follow.counts["gaps"] == (0 if spans else 1)


def test_a_gap_of_years_costs_no_time() -> None:
    windows = feed(windower(), {0: [0], 1: [1], 2: [2], 3e8: [3], 3e8 + 1: [4], 3e8 + 2: [5]})

    assert contents(windows) == [[0, 1, 2], [3, 4, 5]]


def test_the_first_reading_of_a_row_counts() -> None:
    follow = windower(length=1)

    assert follow.put(0, BASE * SECOND, 1.0) is None
    assert follow.put(0, BASE * SECOND + 100_000, 2.0) is None
    assert contents(list(follow.take())) == [[1.0]]
    assert follow.put(0, BASE * SECOND + 200_000, 3.0) is None
    assert follow.counts["surplus"] == 2
    assert follow.put(0, (BASE - 2) * SECOND, 3.0) == "out-of-order"


def test_ticks_that_straddle_a_rows_edge_count_as_measured() -> None:
    # A 1 Hz sensor half a second off the grid, jittering: rows get none and two in turn.
    times = [0.45, 1.55, 2.45, 3.55, 4.45, 5.55]

    windows = feed(windower(length=4), {time: [float(n)] for n, time in enumerate(times)})

    assert windows
    assert {window.valid for window in windows} == {1.0}
    assert contents(windows)[0] == [0, 0, 1, 2]


def test_rows_of_any_rate_stay_on_the_grid() -> None:
    follow = windower(length=300, stride=300, rate_hz=3.0)

    windows = feed(follow, {n / 3: [float(n)] for n in range(900)})

    assert [window.valid for window in windows] == [1.0] * len(windows)
    assert len(windows) >= 2
    assert all(np.diff(window.array[:, 0]).tolist() == [1.0] * 299 for window in windows)


def slow_account(
    readings: dict[int, list[float | None]], spec: WindowSpec
) -> list[tuple[int, list[list[float]], float]]:
    """Say what windows the rows of whole seconds give, straight from the rules: (last row, values, valid)."""
    if not readings:
        return []
    width = len(next(iter(readings.values())))
    found = []
    filled: dict[int, tuple[list[float], int]] = {}
    for row in range(min(readings), max(readings) + 1):
        values, measured = [], 0
        for channel in range(width):
            for back in range(spec.max_hold_rows + 1):
                value = readings.get(row - back, [None] * width)[channel]
                if value is not None:
                    values.append(value)
                    measured += back == 0
                    break
        if len(values) == width:
            filled[row] = (values, measured)
        part = [filled.get(row - back) for back in reversed(range(spec.length))]
        if (row + 1) % spec.stride == 0 and all(one is not None for one in part):
            valid = sum(one[1] for one in part if one) / (spec.length * width)
            if valid >= spec.min_valid:
                found.append((row, [one[0] for one in part if one], valid))
    return found


cells = st.one_of(st.none(), st.floats(-100, 100, width=32), st.floats(-100, 100, width=32))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=40),
    length=st.integers(1, 6),
    stride=st.integers(1, 7),
    hold=st.integers(0, 3),
    late=st.integers(0, 3),
    min_valid=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_windows_agree_with_the_slow_account(
    rows: list[tuple[float | None, float | None]],
    length: int,
    stride: int,
    hold: int,
    late: int,
    min_valid: float,
) -> None:
    spec = WindowSpec(length=length, stride=stride, max_hold_rows=hold, late_rows=late, min_valid=min_valid)
    present = {BASE + n: list(row) for n, row in enumerate(rows) if any(value is not None for value in row)}

    windows = feed(Windower(spec, 2), {row - BASE: values for row, values in present.items()})

    expected = slow_account(present, spec)
    assert [window.end_us // SECOND for window in windows] == [row for row, _, _ in expected]
    for window, (_, values, valid) in zip(windows, expected, strict=True):
        assert window.array.tolist() == values
        assert math.isclose(window.valid, valid)
