"""A device's place in a rollout over any order of reports and silence."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.delivery.progress import (
    UNFINISHED,
    DeviceProgress,
    DeviceState,
    advance,
    expire,
    summarise,
)
from hedgerow.shared.messages import BundleReport, ReportedState

NOW = datetime(2026, 3, 1)  # noqa: DTZ001 - tables keep UTC without zone
MINE, OTHER = "a" * 64, "b" * 64
REPORTS = st.tuples(
    st.sampled_from(["downloading", "verified", "serving", "failed", "rolled-back", "baseline"]),
    st.sampled_from([MINE, OTHER]),
    st.sampled_from(["pump", "fan"]),
    st.text(max_size=20),
)
STEPS = st.lists(st.one_of(REPORTS, st.integers(0, 120)), max_size=15)
STATES: tuple[DeviceState, ...] = get_args(DeviceState)


def play(steps: list[Any]) -> tuple[DeviceProgress, list[Any], bool]:
    """Return where the device ends, what it said of this very bundle, and whether the deadline had passed."""
    progress, said, minutes, late = DeviceProgress("dev", "pending", NOW + timedelta(hours=1)), [], 0, False
    for step in steps:
        if isinstance(step, int):
            minutes += step
            late = late or minutes >= 60
            progress = expire(progress, NOW + timedelta(minutes=minutes))
            continue
        state, sha, model, reason = step
        report = BundleReport(model, 2, sha, state, "litert", "int8", reason=reason)
        progress = advance(progress, ReportedState(1, (report,)), "pump", MINE)
        if (sha, model) == (MINE, "pump"):
            said.append(step)
    return progress, said, late


@given(STEPS)
def test_serving_is_reached_by_the_devices_last_word_about_this_bundle_alone(steps: list[Any]) -> None:
    progress, said, _ = play(steps)

    assert (progress.state == "serving") == bool(said and said[-1][0] == "serving")


@given(STEPS)
def test_what_is_said_of_another_bundle_or_model_changes_nothing(steps: list[Any]) -> None:
    mine = [step for step in steps if isinstance(step, int) or (step[1], step[2]) == (MINE, "pump")]

    assert play(steps)[0] == play(mine)[0]


@given(STEPS)
def test_a_timeout_needs_a_deadline_that_passed_without_an_end(steps: list[Any]) -> None:
    progress, said, late = play(steps)

    if progress.state == "timeout":
        assert late
        assert not said or said[-1][0] in ("downloading", "verified")
        assert "at the deadline" in progress.reason
    if late and steps and isinstance(steps[-1], int):
        assert progress.state not in UNFINISHED


@given(STEPS)
def test_a_failure_always_says_why(steps: list[Any]) -> None:
    progress, said, _ = play(steps)

    if progress.state == "failed":
        state, _, _, reason = said[-1]
        assert progress.reason == (reason or state)
    assert len(progress.reason) <= 1000


@given(STEPS)
def test_the_same_report_twice_is_told_once(steps: list[Any]) -> None:
    """What is equal is not written again: a fleet reports every ten seconds."""
    progress, said, _ = play(steps)
    if said and progress.state != "timeout":
        state, sha, model, reason = said[-1]
        report = BundleReport(model, 2, sha, state, "litert", "int8", reason=reason)

        assert advance(progress, ReportedState(1, (report,)), "pump", MINE) == progress


@given(STEPS, st.integers(0, 10_000))
def test_expiring_is_final_until_the_device_speaks(steps: list[Any], minutes: int) -> None:
    progress, _, _ = play(steps)
    later = NOW + timedelta(minutes=minutes)

    assert expire(expire(progress, later), later) == expire(progress, later)


@given(st.lists(st.sampled_from(STATES)))
def test_a_rollout_runs_while_anybody_does_and_is_done_only_where_all_serve(
    states: list[DeviceState],
) -> None:
    found = summarise(states)

    assert (found == "running") == any(state in UNFINISHED for state in states)
    assert (found == "done") == all(state == "serving" for state in states)
    assert found == summarise(reversed(states)) == summarise(set(states))


@pytest.mark.parametrize("state", STATES)
def test_the_deadline_itself_is_past_it(state: DeviceState) -> None:
    progress = DeviceProgress("dev", state, NOW)

    assert expire(progress, NOW - timedelta(microseconds=1)) == progress
    assert (expire(progress, NOW).state == "timeout") == (state in UNFINISHED or state == "timeout")
