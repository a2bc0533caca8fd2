"""Rows, ratios and verdicts from made-up seconds; the table says what failed and why."""

from __future__ import annotations

from typing import Any

import pytest

from hedgerow.simulations.bench.simulation_peers.sgemm import FLOPS
from hedgerow.simulations.bench.simulation_run.figures import all_met, rows_of, starts_of, wanted_ratio
from hedgerow.simulations.bench.simulation_run.growth import growth_lines
from hedgerow.simulations.bench.simulation_run.table import table
from hedgerow.simulations.bench.simulation_run.turns import Figures, Measured
from hedgerow.simulations.bench.simulation_run.workloads import WORKLOADS, make_task

TASK = make_task("digits")
SAMPLES = len(TASK.x)


def measured(private: bool = False, **engines: Figures) -> Measured:
    return Measured(WORKLOADS["digits-100"], private, [2, 3], engines, products=[FLOPS / 100e9])


def ours(*seconds: float) -> Figures:
    return Figures(list(seconds), 0.0, 100 << 20)


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["engines"] if each["engine"] == name)


def test_a_ratio_is_of_medians_beside_that_of_minima() -> None:
    peer = Figures([2.0, 5.0, 3.0], 1e-7, 200 << 20)
    found = rows_of(measured(lean=ours(0.1, 0.3, 0.2), flower=peer), TASK, 1000)
    assert row(found, "flower")["ratio"] == 15.0
    assert row(found, "flower")["ratio_of_minima"] == 20.0
    assert row(found, "lean")["ratio"] is None
    assert row(found, "flower")["peak_pss_mib"] == 200


def test_a_ratio_below_what_is_wanted_is_not_met() -> None:
    found = rows_of(measured(lean=ours(0.1), flower=ours(2.4), plain=ours(0.31)), TASK, 1000)
    assert (row(found, "flower")["wanted_ratio"], row(found, "flower")["met"]) == (25.0, False)
    assert row(found, "plain")["met"] is True


def test_with_privacy_only_flowers_ratio_is_wanted() -> None:
    found = rows_of(measured(private=True, lean=ours(0.1), flower=ours(0.6), plain=ours(0.2)), TASK, 1000)
    assert (row(found, "flower")["wanted_ratio"], row(found, "flower")["met"]) == (5.0, True)
    assert row(found, "plain")["wanted_ratio"] is None
    assert found["of_floor"] is None


def test_the_floor_is_the_operations_over_the_measured_rate() -> None:
    found = rows_of(measured(lean=ours(0.5)), TASK, 1_000_000)
    assert found["sgemm_gflop_s"] == 100.0
    assert found["floor_s"] == pytest.approx(SAMPLES * 1e6 / 100e9, rel=1e-3)
    assert found["of_floor"] == pytest.approx(SAMPLES * 1e6 / 100e9 / 0.5, abs=1e-4)


def test_a_model_that_differs_is_marked() -> None:
    found = rows_of(measured(lean=ours(0.1), plain=Figures([1.0], 2e-5, 0)), TASK, 1000)
    assert row(found, "plain")["same"] is False
    assert " !" in table({"workloads": [found], "starts": []})


def test_an_engine_that_failed_has_a_row_that_says_why() -> None:
    failed = Figures(error="it ended: Traceback\nModuleNotFoundError: No module named 'pfl'")
    found = rows_of(measured(lean=ours(0.1), pfl=failed), TASK, 1000)
    assert row(found, "pfl")["met"] is None
    assert "pfl            failed: ModuleNotFoundError: No module named 'pfl'" in table(
        {"workloads": [found], "starts": []}
    )


def test_when_ours_failed_there_are_no_ratios() -> None:
    found = rows_of(measured(lean=Figures(error="gone"), plain=ours(0.3)), TASK, 1000)
    assert row(found, "plain")["ratio"] is None
    assert found["of_floor"] is None
    assert not all_met({"workloads": [found], "starts": []})


def test_first_rounds_are_wanted_of_ours_alone() -> None:
    late = starts_of("digits", {"lean": 3.4, "plain": 2.0, "sgemm": 1.0}, {})
    assert (late["wanted_s"], late["met"]) == (3.0, False)
    assert "sgemm" not in late["first_round_s"]
    assert starts_of("mlp", {"lean": 9.0}, {})["met"] is None
    assert "first round" in table({"workloads": [], "starts": [late]})


@pytest.mark.parametrize(
    ("seconds", "first", "met"), [(2.5, 2.0, True), (2.4, 2.0, False), (2.5, 3.5, False)]
)
def test_all_is_met_when_every_wanted_figure_is(seconds: float, first: float, met: bool) -> None:
    found = rows_of(measured(lean=ours(0.1), flower=ours(seconds)), TASK, 1000)
    starts = [starts_of("digits", {"lean": first}, {})]
    assert all_met({"workloads": [found], "starts": starts}) is met


def test_nothing_measured_is_nothing_met() -> None:
    assert not all_met({"workloads": [], "starts": []})


@pytest.mark.parametrize(
    ("engine", "family", "private", "wanted"),
    [
        ("flower", "synth28", False, 8.0),
        ("flower", "mlp", False, 50.0),
        ("plain", "mlp", False, 8.0),
        ("pfl", "digits", False, 1.8),
        ("pfl-1", "digits", False, None),
        ("flower", "mlp", True, 5.0),
    ],
)
def test_what_is_wanted(engine: str, family: str, private: bool, wanted: float | None) -> None:
    assert wanted_ratio(engine, family, private) == wanted


def test_growth_is_told_as_data_and_copies() -> None:
    peaks = {"small_pss_mib": 300.0, "large_pss_mib": 950.0, "growth_mib": 650.0}
    result = {
        "devices": 10_000,
        "cohort": 100,
        "workers": 2,
        "data_mib": 590.0,
        "model_mib": 12.5,
        "wanted_copies_per_worker": 3,
        "opening": {**peaks, "copies_per_worker": 2.4},
        "rounds": {**peaks, "copies_per_worker": 1.5},
    }
    lines = growth_lines(result).splitlines()
    assert "10000 devices" in lines[0]
    assert "data + 2.4 copies" in lines[1]
    assert lines[2].startswith("rounds")
    assert "data + 1.5 copies" in lines[2]
