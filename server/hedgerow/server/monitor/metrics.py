"""Metrics for Prometheus: computed from the views when scraped, with labels from closed sets and no device names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hedgerow.server.monitor.views import (
    AlertView,
    DeviceStatus,
    DeviceView,
    JobView,
    Reader,
    RoundView,
    ServingView,
)

UNREGISTERED = "unregistered"
"""The label in place of a model or version that a device reports and the registry does not hold."""
_STATUSES: tuple[DeviceStatus, ...] = get_args(DeviceStatus)


class FleetCollector(Collector):
    """Turns the reader's views into metric families; the number of series does not grow with the fleet."""

    def __init__(self, reader: Reader, alerts: Callable[[], list[AlertView]]) -> None:
        self._reader = reader
        self._alerts = alerts

    def collect(self) -> Iterator[Metric]:
        """Yield every family once."""
        known = {(model.model, model.version) for model in self._reader.models()}
        yield from _device_families(self._reader.devices(), known)
        jobs = self._reader.jobs()
        yield from _job_families(jobs)
        current = next((job for job in jobs if job.round > 0), None)
        yield from _round_families(self._reader.rounds(current.job_id) if current else [])
        alerts = GaugeMetricFamily(
            "hedgerow_alerts_active", "Alerts that hold now", labels=["name", "severity"]
        )
        for (name, severity), count in Counter((a.name, a.severity) for a in self._alerts()).items():
            alerts.add_metric([name, severity], count)
        yield alerts


def render(collector: Collector) -> bytes:
    """Return the text exposition of one collector."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)


def _device_families(devices: list[DeviceView], known: Set[tuple[str, int]]) -> Iterator[Metric]:
    status = GaugeMetricFamily("hedgerow_fleet_devices", "Devices by status", labels=["status"])
    counts = Counter(device.status for device in devices)
    for name in _STATUSES:
        status.add_metric([name], counts[name])
    yield status
    versions = GaugeMetricFamily(
        "hedgerow_fleet_serving_devices",
        "Devices by model, reported version and state",
        labels=["model", "version", "state"],
    )
    serving = Counter((*_told(s, known), s.state) for d in devices for s in d.serving)
    for labels, count in serving.items():
        versions.add_metric(list(labels), count)
    yield versions
    yield _total("hedgerow_telemetry_readings", "Readings accepted", (d.readings_total for d in devices))
    yield _total("hedgerow_telemetry_quarantined", "Readings refused", (d.quarantined_total for d in devices))
    yield _total("hedgerow_inference_runs", "Inferences", (d.inferences_total for d in devices))
    yield _total("hedgerow_inference_alarms", "Alarms raised", (d.alarms_total for d in devices))
    yield _total("hedgerow_device_sent_bytes", "Bytes sent by devices", (d.bytes_up for d in devices))
    yield _total(
        "hedgerow_device_received_bytes", "Bytes received by devices", (d.bytes_down for d in devices)
    )


def _told(serving: ServingView, known: Set[tuple[str, int]]) -> tuple[str, str]:
    """Return model and version as labels. A device may report any name, so only what is registered becomes a series."""
    version = serving.reported_version or 0
    if (serving.model, version) in known:
        return serving.model, str(version)
    model = serving.model if any(serving.model == name for name, _ in known) else UNREGISTERED
    return model, "0" if version == 0 and model != UNREGISTERED else UNREGISTERED


def _total(name: str, text: str, values: Iterable[int]) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=sum(values))


def _job_families(jobs: list[JobView]) -> Iterator[Metric]:
    states = GaugeMetricFamily("hedgerow_jobs", "Jobs by state", labels=["state"])
    for state, count in Counter(job.state for job in jobs).items():
        states.add_metric([state], count)
    yield states
    spent = [job.epsilon for job in jobs if job.epsilon is not None]
    yield GaugeMetricFamily(
        "hedgerow_privacy_epsilon_max",
        "Largest ε that a device reports or a population was charged",
        value=max(spent, default=0.0),
    )


def _round_families(rounds: list[RoundView]) -> Iterator[Metric]:
    last = rounds[-1] if rounds else None
    yield GaugeMetricFamily(
        "hedgerow_round_number", "Last committed round of the newest job", value=last.round if last else 0
    )
    yield GaugeMetricFamily(
        "hedgerow_round_duration_seconds", "Its duration", value=last.duration_s if last else 0.0
    )
    replies = GaugeMetricFamily("hedgerow_round_devices", "Its devices by outcome", labels=["outcome"])
    for outcome in ("replied", "rejected", "dropped"):
        count = getattr(last, outcome) if last else 0
        if count is not None:  # withheld in central privacy modes
            replies.add_metric([outcome], count)
    yield replies
