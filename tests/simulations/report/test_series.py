"""What is drawn is what was recorded."""

from __future__ import annotations

import pytest
from tests.support.simulation_results import result_of, round_of, with_rounds

from hedgerow.simulations.report import series


def test_score_starts_from_the_untrained_model() -> None:
    (line,) = series.score_lines(result_of())
    assert line.x == (0.0, 1.0, 2.0, 3.0)
    assert line.y == pytest.approx((0.05, 0.1, 0.2, 0.3))
    assert line.low == ()


def test_rounds_without_a_score_are_left_out_and_not_drawn_as_zero() -> None:
    rounds = (round_of(1), round_of(2, scores={}), round_of(3))
    (line,) = series.score_lines(with_rounds(*rounds))
    assert line.x == (1.0, 3.0)


def test_devices_have_a_band_of_their_quantiles() -> None:
    rounds = (round_of(1, device_quantiles=(0.1, 0.5, 0.9)), round_of(2))
    lines = series.score_lines(with_rounds(*rounds))
    assert len(lines) == 2
    assert (lines[1].x, lines[1].y, lines[1].low, lines[1].high) == ((1.0,), (0.5,), (0.1,), (0.9,))


def test_cohorts_are_one_curve_each() -> None:
    rounds = (round_of(1, cohorts={"a": 0.1, "b": 0.2}), round_of(2, cohorts={"b": 0.4}))
    a, b = series.cohort_lines(with_rounds(*rounds))
    assert (a.label, a.x, a.y) == ("a", (1.0,), (0.1,))
    assert (b.label, b.x, b.y) == ("b", (1.0, 2.0), (0.2, 0.4))


def test_bytes_add_up_over_the_rounds() -> None:
    up, down = series.byte_lines(result_of())
    assert up.y == pytest.approx((1.0, 2.0, 3.0))
    assert down.y == pytest.approx((2.0, 4.0, 6.0))


def test_withheld_loss_and_missing_epsilon_give_empty_curves() -> None:
    result = with_rounds(round_of(1, loss=None), round_of(2, loss=None))
    assert series.loss_line(result).x == ()
    assert series.epsilon_line(result).x == ()


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [(0, "seconds"), (119, "seconds"), (120, "minutes"), (7199, "minutes"), (7200, "hours"), (1e6, "hours")],
)
def test_time_is_told_in_a_unit_that_people_use(seconds: float, unit: str) -> None:
    assert series.time_unit(seconds)[0] == unit


def test_score_over_time_uses_one_unit_for_the_whole_curve() -> None:
    rounds = (round_of(1, simulated_s=60.0), round_of(2, simulated_s=600.0))
    line, unit = series.score_over_time(with_rounds(*rounds))
    assert unit == "minutes"
    assert line.x == (1.0, 10.0)


def test_devices_without_a_score_are_not_in_the_histogram() -> None:
    assert series.device_scores(result_of()) == pytest.approx([0.1, 0.2, 0.3])
