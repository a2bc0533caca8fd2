"""Numbers as words: what a person reads back is what was meant, to the figures shown."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.simulation_results import result_of, with_rounds

from hedgerow.simulations.run.records import PrivacySummary, RoundRecord
from hedgerow.simulations.run.sweep import Trial
from hedgerow.simulations.run.words import (
    bytes_of,
    duration,
    privacy_line,
    round_parts,
    summary_rows,
    trial_row,
)

UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@given(st.integers(0, 999 * 10**12))
def test_bytes_are_told_to_three_figures(count: int) -> None:
    number, unit = bytes_of(count).split()
    assert float(number) * UNITS[unit] == pytest.approx(count, rel=0.005, abs=0.5)
    assert float(number) < 1000
    assert "e" not in number


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (1.5e12, "1.5 TB")],
)
def test_bytes_change_their_unit_where_the_next_one_is_shorter(count: float, text: str) -> None:
    assert bytes_of(count) == text


def seconds_of(text: str) -> float:
    """Read a duration back."""
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) ([a-z]+)", text))


@given(st.floats(0, 1e8))
def test_durations_are_right_to_their_last_word(seconds: float) -> None:
    said = seconds_of(duration(seconds))
    allowed = (
        0.0006
        if seconds < 1
        else 0.051
        if seconds < 100
        else 0.51
        if seconds < 3600
        else 60
        if seconds < 86_400
        else 3600
    )
    assert abs(said - seconds) <= allowed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"), (0.25, "250 ms"), (1.0, "1.0 s"), (61, "61.0 s"), (100, "1 min 40 s"), (3599.6, "1 h 0 min"),
        (7260, "2 h 1 min"), (86_400, "1 d 0 h"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_round_tells_what_it_knows_and_nothing_else() -> None:
    bare = RoundRecord(round=3, drawn=10, counted=8)
    assert round_parts(bare, 20, "accuracy") == [
        "round 3/20", "ε ∞", "8/10 devices", "0 B up, 0 B down", "0 ms simulated",
    ]  # fmt: skip
    full = msgspec.structs.replace(
        bare,
        scores={"accuracy": 0.91234, "other": 1.0},
        loss=0.5,
        epsilon=1.2345,
        staleness=1.5,
        rejected={"non-finite": 2},
        events=("1 late",),
    )
    told = round_parts(full, 20, "accuracy")
    assert {"accuracy 0.9123", "loss 0.5", "ε 1.23", "1.5 versions behind", "2 non-finite", "1 late"} <= set(
        told
    )
    assert not [part for part in told if part.startswith("other")]


def summary(epsilon: float | None, replace: float | None = None) -> PrivacySummary:
    return PrivacySummary(
        "example",
        "simulated, no claim",
        "example",
        "add-remove",
        epsilon,
        epsilon,
        replace,
        1e-5,
        1.0,
        "Poisson",
    )


def test_privacy_is_told_claim_first() -> None:
    assert privacy_line(summary(None)) == "none: ε is infinite"
    line = privacy_line(summary(2.0, 3.0))
    assert line.startswith("simulated, no claim: ε 2 at δ 1e-05")
    assert line.endswith("3 under replace")
    assert "replace" not in privacy_line(summary(2.0))


def test_the_table_adds_bytes_and_joules_over_rounds() -> None:
    rounds = [
        RoundRecord(n, 4, 4, bytes_up=1500, bytes_down=3000, energy_j=2.5, simulated_s=60.0 * n)
        for n in (1, 2)
    ]
    rows = dict(summary_rows(with_rounds(*rounds)))
    assert rows["bytes"] == "3 kB up, 6 kB down"
    assert rows["simulated"] == "2 min 0 s, 5 J on the devices"
    assert rows["rounds"].startswith("2 ")
    assert result_of().metric not in rows  # no score, no row


def test_a_run_of_no_rounds_has_a_table_too() -> None:
    rows = dict(summary_rows(with_rounds()))
    assert "simulated" not in rows
    assert rows["bytes"] == "0 B up, 0 B down"


@pytest.mark.parametrize(
    ("trial", "row"),
    [
        (Trial(3, {"a": 0.1, "b": "x"}, 9, 0.98765, 1.234), ["3", "0.1", "x", "9", "0.9877", "1.23"]),
        (Trial(0, {"a": 1}, 1, None), ["0", "1", "1", "–", "∞"]),
        (Trial(1, {"a": 1}, 0, None, failed="too large"), ["1", "1", "0", "fell apart", "∞"]),
    ],
)
def test_a_trial_is_one_row(trial: Trial, row: list[str]) -> None:
    assert trial_row(trial) == row


def test_flat_rows_hold_every_figure_under_a_name_of_its_own() -> None:
    record = RoundRecord(
        1, 4, 3, rejected={"non-finite": 1}, scores={"accuracy": 0.5}, device_quantiles=(0.1, 0.2, 0.3),
        cohorts={"a": 0.4}, events=("x", "y"),
    )  # fmt: skip
    (row,) = with_rounds(record).records()
    assert row["rejected.non-finite"] == 1
    assert row["scores.accuracy"] == 0.5
    assert (row["device_p10"], row["device_p50"], row["device_p90"]) == (0.1, 0.2, 0.3)
    assert row["cohorts.a"] == 0.4
    assert row["events"] == "x; y"
    assert not [value for value in row.values() if isinstance(value, dict | list | tuple)]
    assert math.isclose(row["round"], 1)
