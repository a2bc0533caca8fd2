"""A device's place in a rollout: only its own word about this very manifest counts as serving."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.delivery.progress import UNFINISHED, DeviceProgress, advance, expire, summarise
from hedgerow.shared.messages import BundleReport, ReportedState

NOW = datetime(2026, 3, 1)  # noqa: DTZ001 - tables keep UTC without zone
SHA = "a" * 64
PENDING = DeviceProgress("dev-1", "pending", NOW + timedelta(hours=1))
STATES = ["downloading", "verified", "serving", "failed", "rolled-back", "baseline"]


def says(state: Any, *, sha: str = SHA, model: str = "pump", reason: str = "") -> ReportedState:
    report = BundleReport(model, 2, sha, state, "litert", "int8", "xnnpack", reason)
    return ReportedState(1, (BundleReport("other", 1, SHA, "failed"), report))


@pytest.mark.parametrize(
    ("reported", "state"),
    [
        ("downloading", "downloading"),
        ("verified", "verified"),
        ("serving", "serving"),
        ("failed", "failed"),
        ("rolled-back", "failed"),
        ("baseline", "failed"),
    ],
)
def test_a_report_moves_a_device(reported: str, state: str) -> None:
    after = advance(PENDING, says(reported), "pump", SHA)

    assert (after.state, after.runtime, after.precision) == (state, "litert", "int8")


def test_a_failure_without_a_reason_says_what_the_device_did() -> None:
    assert advance(PENDING, says("rolled-back"), "pump", SHA).reason == "rolled-back"
    assert advance(PENDING, says("failed", reason="golden check"), "pump", SHA).reason == "golden check"


@pytest.mark.parametrize("state", STATES)
def test_serving_another_manifest_says_nothing(state: str) -> None:
    assert advance(PENDING, says(state, sha="b" * 64), "pump", SHA) is PENDING
    assert advance(PENDING, says(state, model="digits"), "pump", SHA) is PENDING


def test_a_device_that_was_off_and_then_serves_is_serving() -> None:
    late = expire(PENDING, NOW + timedelta(hours=2))

    assert late.state == "timeout"
    assert advance(late, says("serving"), "pump", SHA).state == "serving"
    assert advance(late, says("downloading"), "pump", SHA) is late


def test_a_device_that_serves_and_then_falls_back_has_failed() -> None:
    serving = advance(PENDING, says("serving"), "pump", SHA)

    assert advance(serving, says("rolled-back", reason="crash loop"), "pump", SHA).reason == "crash loop"


def test_silence_before_the_deadline_is_no_failure() -> None:
    assert expire(PENDING, NOW) is PENDING
    assert "still pending" in expire(PENDING, PENDING.deadline).reason


@settings(deadline=None)
@given(st.sampled_from(STATES), st.integers(0, 10**7))
def test_only_unfinished_devices_time_out(reported: str, after_s: int) -> None:
    progress = advance(PENDING, says(reported), "pump", SHA)
    later = expire(progress, NOW + timedelta(seconds=after_s))

    assert (later.state == "timeout") == (progress.state in UNFINISHED and after_s >= 3600)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["pending", "downloading", "verified", "serving", "failed", "timeout"])))
def test_a_rollout_is_done_exactly_when_every_device_serves(states: list[Any]) -> None:
    summary = summarise(states)

    assert (summary == "done") == all(state == "serving" for state in states)
    assert (summary == "running") == any(state in UNFINISHED for state in states)
