"""One line says what a person needs: how bad, which channels, which model on which runtime."""

from __future__ import annotations

import pytest

from hedgerow.server.monitor.describe import describe
from hedgerow.shared.messages import Alarm, AlarmCleared, ChannelShare, EventBody, GapRecord, Notice

SHARES = tuple(
    ChannelShare(name, share)
    for name, share in (("current", 0.1), ("flow", 0.7), ("voltage", 0.05), ("pressure", 0.15))
)


def alarm(bundle: str = "ab" * 32, threshold: float = 2.0) -> Alarm:
    return Alarm(5.0, threshold, 0, 1, SHARES, "pump", bundle, "litert", "int8", "statistical baseline")


def test_an_alarm_names_the_top_channels_bundle_and_runtime() -> None:
    text = describe(alarm())

    assert (
        text
        == "anomaly: score 2.5 times its threshold; flow 70%, pressure 15%, current 10% (pump abababababab, litert int8)"
    )


def test_a_baseline_alarm_names_the_reason() -> None:
    assert describe(alarm(bundle="")).endswith("(statistical baseline)")


def test_a_zero_threshold_does_no_harm() -> None:
    assert "inf times" in describe(alarm(threshold=0.0))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (AlarmCleared("pump", 1, 12.4), "pump: quiet again after 12 s"),
        (GapRecord(3, 7, "full"), "events 3 to 7 are missing: full"),
        (Notice("trainer-died", "killed"), "trainer-died: killed"),
    ],
)
def test_other_events(body: EventBody, text: str) -> None:
    assert describe(body) == text
