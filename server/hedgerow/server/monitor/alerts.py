"""Which alerts hold now: pure rules over views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hedgerow.server.monitor.views import AlertView, DeviceView, EventView, JobView, RolloutView

QUARANTINE_SHARE = 0.05
QUARANTINE_MIN_READINGS = 200
ALARM_FRESH_S = 15 * 60


def evaluate(
    devices: Sequence[DeviceView],
    jobs: Sequence[JobView],
    rollouts: Sequence[RolloutView],
    events: Sequence[EventView],
    now_us: int,
) -> list[AlertView]:
    """Return the alerts that hold at ``now_us``, the most severe first. ``events`` come newest first."""
    found = [
        *_device_alerts(devices, now_us),
        *_job_alerts(jobs),
        *_rollout_alerts(rollouts),
        *_alarm_alerts(events, now_us),
    ]
    order = {"critical": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda alert: (order[alert.severity], alert.name, alert.subject))


def _device_alerts(devices: Iterable[DeviceView], now_us: int) -> Iterator[AlertView]:
    for device in devices:
        since = device.last_seen_us or now_us
        if device.status == "offline":
            yield AlertView("DeviceOffline", "warning", device.device, "no heartbeat", since)
        total = device.readings_total + device.quarantined_total
        if total >= QUARANTINE_MIN_READINGS and device.quarantined_total > QUARANTINE_SHARE * total:
            share = device.quarantined_total / total
            text = f"{share:.0%} of readings are in quarantine"
            yield AlertView("QuarantineRatioHigh", "warning", device.device, text, since)
        for serving in device.serving:
            if serving.state in ("failed", "baseline", "rolled-back"):
                text = f"{serving.model}: {serving.state} {serving.reason}".strip()
                yield AlertView("FallbackActive", "warning", device.device, text, since)


def _job_alerts(jobs: Iterable[JobView]) -> Iterator[AlertView]:
    for job in jobs:
        if job.state == "failed":
            yield AlertView(
                "JobFailed", "critical", job.name, job.reason, job.finished_us or job.submitted_us
            )
        spent = job.epsilon is not None and job.epsilon_asked is not None and job.epsilon > job.epsilon_asked
        if spent:
            text = f"ε {job.epsilon:.3g} is over the {job.epsilon_asked:.3g} asked for"
            yield AlertView("PrivacyBudgetExceeded", "critical", job.name, text, job.submitted_us)


def _rollout_alerts(rollouts: Iterable[RolloutView]) -> Iterator[AlertView]:
    for rollout in rollouts:
        failed = sum(rollout.devices.get(state, 0) for state in ("failed", "timeout"))
        if failed and rollout.state != "superseded":
            subject = f"{rollout.model} v{rollout.version}"
            yield AlertView(
                "RolloutFailing", "warning", subject, f"{failed} devices failed", rollout.started_us
            )


def _alarm_alerts(events: Iterable[EventView], now_us: int) -> Iterator[AlertView]:
    settled: set[tuple[str, str]] = set()
    for event in events:
        if event.kind not in ("alarm", "alarm-cleared"):
            continue
        key = (event.device, str(event.detail.get("model", "")))
        if key in settled:
            continue
        settled.add(key)
        if event.kind == "alarm" and now_us - event.at_us < ALARM_FRESH_S * 1_000_000:
            yield AlertView("Anomaly", "critical", event.device, event.text, event.at_us)
