"""Reads the parts of the server as views for operators. Every method blocks on the database: call it from a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.fleet.devices import Device
from hedgerow.server.fleet.heartbeats import Seen
from hedgerow.server.fleet.service import Fleet
from hedgerow.server.jobs.records import JobRecord, RoundRecord
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.monitor.describe import describe
from hedgerow.server.monitor.latency import quantile_us
from hedgerow.server.monitor.views import (
    DeviceStatus,
    DeviceView,
    EventView,
    JobView,
    ModelView,
    RolloutView,
    RoundView,
    ServingView,
)
from hedgerow.server.registry.service import Registry
from hedgerow.server.registry.values import ModelVersion
from hedgerow.shared.bundle import Manifest
from hedgerow.shared.job import CENTRAL_MODES
from hedgerow.shared.messages import BundleReport, BundleTarget

OFFLINE_AFTER_S = 35.0


class Sources(NamedTuple):
    """The parts that are read. ``metric_of`` names the score that counts in a recipe, ``""`` if it is not known yet."""

    fleet: Fleet
    jobs: JobStore
    registry: Registry
    rollouts: Rollouts
    metric_of: Callable[[str], str]


class ServerReader:
    """Implements ``Reader`` over the server's services."""

    def __init__(self, sources: Sources, offline_after_s: float = OFFLINE_AFTER_S) -> None:
        self._from = sources
        self._offline_after_s = offline_after_s
        self._manifests: dict[str, Manifest] = {}

    def devices(self) -> list[DeviceView]:
        """Return all devices by name."""
        fleet = self._from.fleet
        seen = fleet.heartbeats.all()
        found = sorted(fleet.devices.all(), key=lambda device: device.name)
        return [
            _device_view(
                d, seen.get(d.name), self._status(d, seen.get(d.name)), fleet.desired.get(d.name).bundles
            )
            for d in found
        ]

    def jobs(self, limit: int = 100) -> list[JobView]:
        """Return jobs, newest first."""
        return [self._job_view(record) for record in self._from.jobs.recent(limit)]

    def job(self, job_id: str) -> JobView | None:
        """Return one job."""
        record = self._from.jobs.get(job_id)
        return None if record is None else self._job_view(record)

    def rounds(self, job_id: str) -> list[RoundView]:
        """Return a job's committed rounds in order."""
        job = self._from.jobs.get(job_id)
        if job is None:
            return []
        withheld = job.job.privacy.mode in CENTRAL_MODES
        return [_round_view(record, withheld=withheld) for record in self._from.jobs.rounds(job_id)]

    def models(self) -> list[ModelView]:
        """Return all versions of all models, newest first."""
        registry = self._from.registry
        versions = [
            v
            for model in registry.list_models()
            if model.versions
            for v in registry.list_versions(model.model)
        ]
        return [self._model_view(v) for v in sorted(versions, key=lambda v: v.registered, reverse=True)]

    def rollouts(self, limit: int = 100) -> list[RolloutView]:
        """Return rollouts, newest first."""
        return [
            RolloutView(str(r.id), r.model, r.version, r.kind, r.state, _us(r.started), r.devices)
            for r in self._from.rollouts.list_rollouts(limit)
        ]

    def events(self, limit: int = 200, device: str | None = None) -> list[EventView]:
        """Return device events, newest first."""
        return [
            EventView(
                stored.device,
                stored.event.sequence,
                stored.event.at_us,
                stored.event.severity,
                str(stored.event.body.__struct_config__.tag),
                describe(stored.event.body),
                {k: v for k, v in msgspec.to_builtins(stored.event.body).items() if k != "type"},
            )
            for stored in self._from.fleet.events.latest(limit=limit, device=device)
        ]

    def _status(self, device: Device, seen: Seen | None) -> DeviceStatus:
        if device.status == "revoked":
            return "revoked"
        if seen is None:
            return "never-seen"
        return (
            "online" if self._from.fleet.heartbeats.age_s(device.name) < self._offline_after_s else "offline"
        )

    def _job_view(self, record: JobRecord) -> JobView:
        job = record.job
        return JobView(
            job_id=record.job_id,
            name=job.name,
            recipe=job.recipe,
            state=record.state,
            reason=record.reason,
            mode=job.privacy.mode,
            epsilon_asked=job.privacy.epsilon,
            delta_asked=job.privacy.delta,
            epsilon=record.epsilon,
            round=record.rounds_done,
            rounds=job.rounds,
            metric=self._from.metric_of(job.recipe),
            submitted_us=_us(record.submitted_at),
            finished_us=None if record.finished_at is None else _us(record.finished_at),
            model=str(record.result.get("model", "")),
            model_version=record.result.get("version"),
        )

    def _model_view(self, version: ModelVersion) -> ModelView:
        manifest = self._manifests.get(version.manifest_sha256)
        if manifest is None:
            manifest = self._from.registry.manifest(version.model, version.version)
            self._manifests[version.manifest_sha256] = manifest
        return ModelView(
            model=version.model,
            version=version.version,
            manifest_sha256=version.manifest_sha256,
            task=version.task,
            registered_us=_us(version.registered),
            aliases=version.aliases,
            job_id=version.lineage.job_id,
            recipe=version.lineage.recipe,
            epsilon=version.privacy.epsilon,
            delta=version.privacy.delta,
            privacy_mode=version.privacy.mode,
            artefacts=tuple((a.file, a.runtime, a.precision, a.size_bytes) for a in manifest.artefacts),
            gate=tuple((check.name, check.passed, check.value, check.limit) for check in manifest.gate),
            scores=manifest.scores,
        )


def _device_view(
    device: Device, seen: Seen | None, status: DeviceStatus, wanted: Sequence[BundleTarget]
) -> DeviceView:
    beat = seen.heartbeat if seen is not None else None
    state = beat.state if beat is not None else None
    latency = beat.latency if beat is not None else None
    return DeviceView(
        device=device.name,
        groups=device.groups,
        status=status,
        last_seen_us=None if seen is None else _us(seen.received_at),
        agent_version=beat.agent_version if beat else device.agent_version,
        profile=state.profile if state else "",
        profile_version=state.profile_version if state else 0,
        trainer=state.trainer if state else "",
        pss_bytes=beat.pss_bytes if beat else 0,
        disk_free_bytes=beat.disk_free_bytes if beat else 0,
        readings_total=beat.readings_total if beat else 0,
        quarantined_total=beat.quarantined_total if beat else 0,
        inferences_total=beat.inferences_total if beat else 0,
        alarms_total=beat.alarms_total if beat else 0,
        bytes_up=beat.bytes_up if beat else 0,
        bytes_down=beat.bytes_down if beat else 0,
        latency_p50_us=quantile_us(latency, 0.5) if latency else None,
        latency_p99_us=quantile_us(latency, 0.99) if latency else None,
        serving=_serving(wanted, state.bundles if state else ()),
    )


def _serving(wanted: Sequence[BundleTarget], reported: Sequence[BundleReport]) -> tuple[ServingView, ...]:
    desired = {target.model: target for target in wanted}
    reports = {report.model: report for report in reported}
    views = []
    for model in sorted(desired.keys() | reports.keys()):
        report, target = reports.get(model), desired.get(model)
        views.append(
            ServingView(
                model=model,
                desired_version=target.version if target else None,
                reported_version=report.version if report else None,
                state=report.state if report else "pending",
                runtime=report.runtime if report else "",
                precision=report.precision if report else "",
                reason=report.reason if report else "",
            )
        )
    return tuple(views)


def _round_view(record: RoundRecord, *, withheld: bool) -> RoundView:
    return RoundView(
        round=record.round,
        committed_us=_us(record.committed_at),
        duration_s=record.duration_s,
        drawn=None if withheld else record.drawn,
        replied=None if withheld else record.replied,
        rejected=None if withheld else record.rejected,
        dropped=None if withheld else record.dropped,
        reasons={} if withheld else record.reasons,
        bytes_up=None if withheld else record.bytes_up,
        bytes_down=None if withheld else record.bytes_down,
        scores=record.scores,
        epsilon=record.epsilon,
    )


def _us(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)
