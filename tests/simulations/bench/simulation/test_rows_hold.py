"""Rows of the benchmark for whatever was measured: figures follow from the seconds alone, and JSON can hold them."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.simulations.bench.simulation_peers.sgemm import FLOPS
from hedgerow.simulations.bench.simulation_run.figures import all_met, rows_of, starts_of, wanted_ratio
from hedgerow.simulations.bench.simulation_run.table import table
from hedgerow.simulations.bench.simulation_run.turns import TOLERANCE, Figures, Measured
from hedgerow.simulations.bench.simulation_run.workloads import WORKLOADS, make_task

TASK = make_task("digits")
SECONDS = st.lists(st.floats(1e-4, 1e3), max_size=6)
FIGURES = st.builds(
    Figures,
    seconds=SECONDS,
    difference=st.none()
    | st.floats(0, 1)
    | st.sampled_from([0.0, TOLERANCE, 2 * TOLERANCE, math.nan, math.inf]),
    pss=st.none() | st.integers(0, 2**40),
    error=st.none() | st.text(max_size=20),
)
NAMES = ("lean", "plain", "flower", "pfl")
MEASURED = st.builds(
    Measured,
    workload=st.sampled_from([one for one in WORKLOADS.values() if one.family == "digits"]),
    private=st.booleans(),
    rounds=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    engines=st.dictionaries(st.sampled_from(NAMES), FIGURES, min_size=1).map(
        lambda found: {name: found[name] for name in NAMES if name in found}
    ),
    products=st.lists(st.floats(1e-3, 10), max_size=3),
)


def close(found: float | None, exact: float | None, places: float) -> bool:
    return found is None if exact is None else found is not None and abs(found - exact) <= places


@settings(max_examples=60)
@given(MEASURED)
def test_every_figure_of_a_row_follows_from_the_seconds(measured: Measured) -> None:
    found = rows_of(measured, TASK, 1000)
    ours = measured.engines.get("lean", Figures()).seconds
    for row in found["engines"]:
        figures = measured.engines[row["engine"]]
        both = bool(figures.seconds and ours) and row["engine"] != "lean"
        ratio = statistics.median(figures.seconds) / statistics.median(ours) if both else None
        assert close(row["ratio"], ratio, 0.0051)
        assert close(row["ratio_of_minima"], min(figures.seconds) / min(ours) if both else None, 0.0051)
        assert (row["s_per_round"] is None) == (not figures.seconds)
        wanted = wanted_ratio(row["engine"], "digits", measured.private)
        assert row["met"] == (None if wanted is None or ratio is None else ratio >= wanted)
        known = figures.difference is not None
        assert row["same"] == (figures.difference <= TOLERANCE if known else None)  # type: ignore[operator]


@settings(max_examples=60)
@given(MEASURED)
def test_the_floor_is_a_share_of_our_median_and_of_no_private_run(measured: Measured) -> None:
    found = rows_of(measured, TASK, 1_000_000)
    ours = measured.engines.get("lean", Figures()).seconds
    if not measured.products:
        assert (found["floor_s"], found["of_floor"], found["sgemm_gflop_s"]) == (None, None, None)
        return
    rate = FLOPS / statistics.median(measured.products)
    floor = found["samples_per_round"] * 1e6 / rate
    assert found["floor_s"] == pytest.approx(floor, rel=1e-3)
    if measured.private or not ours:
        assert found["of_floor"] is None
    else:
        assert found["of_floor"] == pytest.approx(floor / statistics.median(ours), abs=6e-5)


@settings(max_examples=60)
@given(MEASURED, st.dictionaries(st.sampled_from([*NAMES, "sgemm"]), st.floats(0, 100)))
def test_whatever_was_measured_is_json_and_a_table(measured: Measured, first: dict[str, float]) -> None:
    result: dict[str, Any] = {
        "workloads": [rows_of(measured, TASK, 1000)],
        "starts": [starts_of("digits", first, {"flower": "Traceback\n  gone"})],
    }
    text = json.dumps({**result, "met": all_met(result)}, allow_nan=False)

    assert json.loads(text)["workloads"] == result["workloads"]
    lines = table(result).splitlines()
    for name in measured.engines:
        assert any(name in line for line in lines)
    assert lines[-1] == "    flower failed:   gone"


@pytest.mark.parametrize("difference", [math.nan, math.inf])
def test_a_model_that_is_no_number_fails_the_run_and_is_no_figure(difference: float) -> None:
    engines = {"lean": Figures([0.01], 0.0, 1), "plain": Figures([1.0], difference, 1)}
    found = rows_of(Measured(WORKLOADS["digits-10"], False, [2], engines, [1.0]), TASK, 1000)
    (plain,) = (row for row in found["engines"] if row["engine"] == "plain")

    assert (plain["difference"], plain["same"], plain["met"]) == (None, False, True)
    assert not all_met({"workloads": [found], "starts": []})
    assert " !" in table({"workloads": [found], "starts": []})
