"""Chart geometry: every point inside the plot, ticks round and covering, bad numbers left out."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.dashboard.charts import line_chart, nice_ticks

numbers = st.floats(-1e9, 1e9)


@given(st.lists(numbers, min_size=1, max_size=50))
def test_every_point_lies_inside_the_plot(ys: list[float]) -> None:
    chart = line_chart("t", [float(n) for n in range(len(ys))], ys)

    assert chart is not None
    for pair in chart.points.split():
        x, y = map(float, pair.split(","))
        assert chart.left - 0.1 <= x <= chart.right + 0.1
        assert chart.top - 0.1 <= y <= chart.bottom + 0.1


@given(numbers, numbers)
def test_ticks_are_even_and_cover_the_values(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)

    ticks = nice_ticks(low, high)

    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    steps = [ticks[n + 1] - ticks[n] for n in range(len(ticks) - 1)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)


def test_no_finite_point_means_no_chart() -> None:
    assert line_chart("t", [], []) is None
    assert line_chart("t", [1.0], [math.nan]) is None


def test_non_finite_points_are_left_out() -> None:
    chart = line_chart("t", [1, 2, 3], [1.0, math.inf, 2.0])

    assert chart is not None
    assert len(chart.points.split()) == 2
    assert chart.last_label == "2"


def test_a_higher_value_is_drawn_higher() -> None:
    chart = line_chart("t", [1, 2], [0.0, 1.0])

    assert chart is not None
    first, last = (float(pair.split(",")[1]) for pair in chart.points.split())
    assert last < first
