"""Populations of thousands of groups: what cannot be told apart is told, and drawn, as its ends and its middle."""

from __future__ import annotations

import statistics
import warnings

import numpy as np
import pytest
from tests.support.simulation_results import round_of, with_rounds

from hedgerow.simulations.report.plots import plots_of, png_of
from hedgerow.simulations.report.series import cohort_lines
from hedgerow.simulations.report.tables import rounds_csv
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.words import MAX_COHORTS, cohorts_line, summary_rows


def run_of(cohorts: int, rounds: int = 3) -> Result:
    rng = np.random.default_rng(cohorts)
    return with_rounds(
        *(
            round_of(n, cohorts={f"writer-{k}": float(rng.random()) for k in range(cohorts)})
            for n in range(1, rounds + 1)
        ),
        device_records=(),
    )


@pytest.mark.parametrize(
    ("cohorts", "lines"), [(1, 1), (MAX_COHORTS, MAX_COHORTS), (MAX_COHORTS + 1, 3), (900, 3)]
)
def test_as_many_as_can_be_told_apart_have_a_curve_each(cohorts: int, lines: int) -> None:
    assert len(cohort_lines(run_of(cohorts))) == lines


def test_the_band_is_over_cohorts_and_the_ends_are_those_of_the_last_round() -> None:
    result = run_of(200)
    band, lowest, highest = cohort_lines(result)
    values = [np.array(list(record.cohorts.values())) for record in result.rounds]
    last = result.rounds[-1].cohorts
    least, most = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])

    assert band.y == pytest.approx([float(np.median(each)) for each in values])
    assert band.low == pytest.approx([float(np.quantile(each, 0.1)) for each in values])
    assert band.high == pytest.approx([float(np.quantile(each, 0.9)) for each in values])
    assert (band.label, lowest.label) == ("200 cohorts: median, 10 to 90 %", f"lowest: {least}")
    assert lowest.y == tuple(record.cohorts[least] for record in result.rounds)
    assert highest.y == tuple(record.cohorts[most] for record in result.rounds)


def test_rounds_without_cohorts_and_cohorts_without_a_round_are_left_out() -> None:
    many = {f"writer-{k}": k / 100 for k in range(50)}
    fewer = {name: score + 1 for name, score in many.items() if name != "writer-49"}
    band, lowest, highest = cohort_lines(
        with_rounds(round_of(1), round_of(2, cohorts=fewer), round_of(3), round_of(4, cohorts=many))
    )

    assert band.x == (2.0, 4.0)
    assert band.y == pytest.approx((1.24, 0.245))
    assert (lowest.x, lowest.y) == ((2.0, 4.0), (1.0, 0.0))
    assert (highest.label, highest.x, highest.y) == ("highest: writer-49", (4.0,), (0.49,))


def test_a_thousand_cohorts_are_drawn_legibly() -> None:
    (plot,) = (plot for plot in plots_of(run_of(1000)) if plot.name == "cohorts")
    # Matplotlib warns where a legend leaves no room for the curves.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png_of(plot).startswith(b"\x89PNG")
    assert len(plot.about) < 400


def test_the_summary_fits_on_a_line_and_the_table_has_all() -> None:
    result = run_of(500)
    last = result.rounds[-1].cohorts
    row = dict(summary_rows(result))["by cohort"]

    assert row.startswith("500: from writer-")
    assert f"by median {statistics.median(last.values()):.4g} to writer-" in row
    assert f"{min(last.values()):.4g}" in row
    assert f"{max(last.values()):.4g}" in row
    assert len(row) < 100
    assert rounds_csv(result).splitlines()[0].count("cohorts.writer-") == 500


def test_a_few_are_named_one_by_one() -> None:
    assert cohorts_line({"a": 0.5, "b": 0.25}) == "a 0.5, b 0.25"
    assert cohorts_line({}) == ""
