"""What operators see of the fleet: plain values, the same for the API, the dashboard and the command line.

No view of a job tells who was drawn into a round: that is for admins only, since sampling claims rest on it.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from hedgerow.shared.messages import Severity

DeviceStatus = Literal["online", "offline", "never-seen", "revoked"]


class ServingView(msgspec.Struct, frozen=True):
    """One model on one device: what it should serve and what it reports."""

    model: str
    desired_version: int | None
    reported_version: int | None
    state: str
    runtime: str
    precision: str
    reason: str


class DeviceView(msgspec.Struct, frozen=True):
    """One device. ``last_seen_us`` is UTC microseconds of the last heartbeat's arrival, None before the first."""

    device: str
    groups: tuple[str, ...]
    status: DeviceStatus
    last_seen_us: int | None
    agent_version: str
    profile: str
    profile_version: int
    trainer: str
    pss_bytes: int
    disk_free_bytes: int
    readings_total: int
    quarantined_total: int
    inferences_total: int
    alarms_total: int
    bytes_up: int
    bytes_down: int
    latency_p50_us: float | None
    latency_p99_us: float | None
    serving: tuple[ServingView, ...]


class RoundView(msgspec.Struct, frozen=True):
    """One committed round: counts, bytes and the server's own score on the recipe's public set.

    In central privacy modes counts and bytes are None: how many were drawn, came or were refused was published without noise
    nowhere, and the sampling claim rests on nobody knowing the draw.
    """

    round: int
    committed_us: int
    duration_s: float
    drawn: int | None
    replied: int | None
    rejected: int | None
    dropped: int | None
    reasons: dict[str, int]
    bytes_up: int | None
    bytes_down: int | None
    scores: dict[str, float]
    epsilon: float | None


class JobView(msgspec.Struct, frozen=True):
    """One job with its progress. ``epsilon`` is the largest that a device reports so far, or what the population was charged."""

    job_id: str
    name: str
    recipe: str
    state: str
    reason: str
    mode: str
    epsilon_asked: float | None
    delta_asked: float | None
    epsilon: float | None
    round: int
    rounds: int
    metric: str
    submitted_us: int
    finished_us: int | None
    model: str
    model_version: int | None


class ModelView(msgspec.Struct, frozen=True):
    """One registered version. ``gate`` holds (name, passed, value, limit) per check."""

    model: str
    version: int
    manifest_sha256: str
    task: str
    registered_us: int
    aliases: tuple[str, ...]
    job_id: str
    recipe: str
    epsilon: float | None
    delta: float | None
    privacy_mode: str
    artefacts: tuple[tuple[str, str, str, int], ...]
    gate: tuple[tuple[str, bool, float, float], ...]
    scores: dict[str, float]


class RolloutView(msgspec.Struct, frozen=True):
    """One rollout with the number of devices in each state."""

    rollout_id: str
    model: str
    version: int
    kind: str
    state: str
    started_us: int
    devices: dict[str, int]


class EventView(msgspec.Struct, frozen=True):
    """One event of a device, as received. ``detail`` holds the body's fields."""

    device: str
    sequence: int
    at_us: int
    severity: Severity
    kind: str
    text: str
    detail: dict[str, Any]


class AlertView(msgspec.Struct, frozen=True):
    """Something an operator should look at now; gone when its condition is gone."""

    name: str
    severity: Severity
    subject: str
    text: str
    since_us: int


class Reader(Protocol):
    """Reads the server's record as views. Every method may touch the database: call from a thread."""

    def devices(self) -> list[DeviceView]:
        """Return all devices by name."""

    def jobs(self, limit: int = 100) -> list[JobView]:
        """Return jobs, newest first."""

    def job(self, job_id: str) -> JobView | None:
        """Return one job."""

    def rounds(self, job_id: str) -> list[RoundView]:
        """Return a job's committed rounds in order."""

    def models(self) -> list[ModelView]:
        """Return all versions of all models, newest first."""

    def rollouts(self, limit: int = 100) -> list[RolloutView]:
        """Return rollouts, newest first."""

    def events(self, limit: int = 200, device: str | None = None) -> list[EventView]:
        """Return device events, newest first."""
