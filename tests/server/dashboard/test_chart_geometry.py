"""Charts of any numbers: ticks enclose them, points lie inside the plot, and nothing raises."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.operator import job, round_view

from hedgerow.server.dashboard.charts import HEIGHT, WIDTH, line_chart, nice_ticks
from hedgerow.server.dashboard.pages import job_charts

ANY = st.floats(allow_nan=False, allow_infinity=False)


@given(ANY, ANY)
@example(5e-324, 1e-323)
@example(-1.7e308, 1.7e308)
@example(1.0, 1.0000000000000002)
@example(0.0, 5e-324)
@example(1e300, 1.0000000001e300)
def test_ticks_rise_evenly_around_any_two_numbers(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)

    assert 2 <= len(ticks) <= 12
    assert all(math.isfinite(tick) for tick in ticks)
    assert all(y > x for x, y in itertools.pairwise(ticks))
    slack = 1e-9 * max(abs(low), abs(high))
    if max(abs(low), abs(high)) <= 1e300:
        assert ticks[0] <= low + slack
        assert ticks[-1] >= high - slack
    steps = [y - x for x, y in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_a_step_is_one_two_a_quarter_of_ten_or_five_times_a_power_of_ten(low: int, width: int) -> None:
    ticks = nice_ticks(float(low), float(low + width))
    step = ticks[1] - ticks[0]
    lead = step / 10 ** math.floor(math.log10(step) + 1e-9)

    assert any(lead == pytest.approx(wanted) for wanted in (1, 2, 2.5, 5))


@given(
    st.lists(st.tuples(st.integers(1, 10_000), ANY), min_size=1, max_size=30, unique_by=lambda pair: pair[0]),
    st.none() | st.just(0.0),
)
def test_every_point_lies_inside_the_plot(pairs: list[tuple[int, float]], floor: float | None) -> None:
    pairs.sort()
    chart = line_chart("t", [float(x) for x, _ in pairs], [y for _, y in pairs], floor=floor)

    assert chart is not None
    places = [tuple(map(float, point.split(","))) for point in chart.points.split()]
    assert len(places) == len(pairs)
    for (x, y), (_, value) in zip(places, pairs, strict=True):
        assert chart.left <= x <= chart.right
        assert (chart.top <= y <= chart.bottom) or abs(value) > 1e300
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert (chart.last_x, chart.last_y) == places[-1]
    assert all(chart.left <= tick.position <= chart.right for tick in chart.x_ticks)
    assert all(chart.top - 0.1 <= tick.position <= chart.bottom + 0.1 for tick in chart.y_ticks)
    assert 0 < chart.left < chart.right < WIDTH
    assert 0 < chart.top < chart.bottom < HEIGHT


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_a_higher_value_is_never_drawn_lower(values: list[float]) -> None:
    chart = line_chart("t", [float(n) for n in range(len(values))], values)

    assert chart is not None
    heights = [-float(point.split(",")[1]) for point in chart.points.split()]
    for (a, up_a), (b, up_b) in itertools.combinations(zip(values, heights, strict=True), 2):
        assert (up_a <= up_b) if a < b else (up_a >= up_b)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_left_out(bad: float) -> None:
    chart = line_chart("t", [1.0, 2.0, 3.0], [0.5, bad, 0.7])

    assert chart is not None
    assert len(chart.points.split()) == 2
    assert line_chart("t", [1.0, bad], [bad, 1.0]) is None
    assert line_chart("t", [], []) is None


def test_the_axis_begins_at_its_floor_where_one_is_asked_for() -> None:
    with_floor = line_chart("t", [1.0, 2.0], [5.0, 6.0], floor=0.0)
    without = line_chart("t", [1.0, 2.0], [5.0, 6.0])

    assert with_floor is not None
    assert without is not None
    assert with_floor.y_ticks[0].label == "0"
    assert float(without.y_ticks[0].label) >= 4.5


def test_lengths_that_differ_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="zip"):
        line_chart("t", [1.0], [])


def test_a_job_s_curves_are_its_metric_and_its_epsilon_and_those_it_lacks_are_left_out() -> None:
    rounds = [round_view(1, 0.6, 1.0), round_view(2, 0.7, None), round_view(3, 0.8, 2.0)]

    score, spent = job_charts(job(), rounds)
    assert len(score.points.split()) == 3
    assert len(spent.points.split()) == 2
    assert (score.last_label, spent.last_label) == ("0.8", "2")
    assert [c.title for c in job_charts(job(metric="accuracy"), rounds)] == [spent.title]
    assert job_charts(job(), [round_view(1, math.nan, None)]) == []
    assert job_charts(job(), []) == []
    assert "charged to every device" in job_charts(job(mode="central-poisson"), rounds)[1].title
