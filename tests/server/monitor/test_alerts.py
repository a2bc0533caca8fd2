"""Each alert holds exactly while its condition does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.operator import NOW, device, event, job

from hedgerow.server.monitor.alerts import evaluate
from hedgerow.server.monitor.views import DeviceView, EventView, JobView, RolloutView, ServingView


def names(
    devices: list[DeviceView] | None = None,
    jobs: list[JobView] | None = None,
    rollouts: list[RolloutView] | None = None,
    events: list[EventView] | None = None,
    now_us: int = NOW,
) -> list[str]:
    return [alert.name for alert in evaluate(devices or [], jobs or [], rollouts or [], events or [], now_us)]


def test_a_healthy_fleet_is_quiet() -> None:
    assert names([device()], [job()], [RolloutView("r", "m", 1, "all", "running", NOW, {"serving": 5})]) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "offline"}, ["DeviceOffline"]),
        ({"status": "revoked"}, []),
        ({"readings_total": 950, "quarantined_total": 50}, []),
        ({"readings_total": 949, "quarantined_total": 51}, ["QuarantineRatioHigh"]),
        ({"readings_total": 9, "quarantined_total": 100}, []),
        ({"serving": (ServingView("m", 2, 1, "failed", "", "", "bad hash"),)}, ["FallbackActive"]),
        ({"serving": (ServingView("m", 2, 1, "downloading", "", "", ""),)}, []),
    ],
)
def test_device_rules(changes: dict[str, Any], expected: list[str]) -> None:
    assert names([device(**changes)]) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "failed", "reason": "gate"}, ["JobFailed"]),
        ({"epsilon": 8.01}, ["PrivacyBudgetExceeded"]),
        ({"epsilon": 8.0}, []),
        ({"mode": "none", "epsilon": None, "epsilon_asked": None}, []),
    ],
)
def test_job_rules(changes: dict[str, Any], expected: list[str]) -> None:
    assert names(jobs=[job(**changes)]) == expected


def test_a_failing_rollout_alerts_until_it_is_superseded() -> None:
    assert names(rollouts=[RolloutView("r", "m", 1, "all", "running", NOW, {"failed": 1})]) == [
        "RolloutFailing"
    ]
    assert names(rollouts=[RolloutView("r", "m", 1, "all", "superseded", NOW, {"failed": 1})]) == []


def test_an_anomaly_alerts_until_cleared_or_old() -> None:
    later = NOW + 16 * 60 * 1_000_000

    assert names(events=[event(1)]) == ["Anomaly"]
    assert names(events=[event(2, "alarm-cleared"), event(1)]) == []
    assert names(events=[event(3), event(2, "alarm-cleared"), event(1)]) == ["Anomaly"]
    assert names(events=[event(1)], now_us=later) == []


def test_the_most_severe_come_first() -> None:
    assert names([device(status="offline")], [job(state="failed")]) == ["JobFailed", "DeviceOffline"]
