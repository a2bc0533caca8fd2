"""Messages between device and server beside the round itself: joining, desired state, heartbeats, events.

This is the closed set of what may leave a device. Readers tolerate unknown fields, so that newer peers may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

Severity = Literal["info", "warning", "critical"]
Text = Annotated[str, Meta(max_length=1000)]
Short = Annotated[str, Meta(max_length=128)]
Hash = Annotated[str, Meta(max_length=64)]


class JoinRequest(msgspec.Struct, frozen=True):
    """What a device sends to join; ``csr_pem`` is PKCS#10 over the key made on the device (P-256)."""

    token_id: Annotated[str, Meta(max_length=16)]
    secret: Annotated[str, Meta(max_length=64)]
    device: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
    csr_pem: Annotated[str, Meta(max_length=4096)]
    agent_version: Short = ""


class JoinResponse(msgspec.Struct, frozen=True):
    """What a joined device gets: its certificate, the CA, the TUF root it starts its trust from."""

    device: str
    certificate_pem: str
    ca_pem: str
    tuf_root: str
    server_id: str
    groups: tuple[str, ...] = ()


class JobAssignment(msgspec.Struct, frozen=True):
    """A job that wants this device, so that the agent starts a trainer."""

    job_id: Short
    recipe: Short
    recipe_hash: Hash


class BundleTarget(msgspec.Struct, frozen=True):
    """The bundle version that a device should serve; ``rollback_ok`` allows an older one."""

    model: Short
    version: int
    manifest_sha256: Hash
    rollback_ok: bool = False


class DesiredState(msgspec.Struct, frozen=True):
    """What the server wants of one device, fetched by long poll; ``revision`` grows with every change."""

    revision: int
    bundles: tuple[BundleTarget, ...] = ()
    jobs: tuple[JobAssignment, ...] = ()


class BundleReport(msgspec.Struct, frozen=True):
    """What a device does with one model: ``state`` is its place in the delivery state machine."""

    model: Short
    version: int
    manifest_sha256: Hash
    state: Literal["downloading", "verified", "serving", "failed", "rolled-back", "baseline"]
    runtime: Short = ""
    precision: Short = ""
    provider: Short = ""
    reason: Text = ""


class RecipeReport(msgspec.Struct, frozen=True):
    """A recipe installed on a device, with the hash of its code."""

    name: Short
    code_hash: Hash


class ReportedState(msgspec.Struct, frozen=True):
    """A device's answer to its desired state."""

    revision: int
    bundles: tuple[BundleReport, ...] = ()
    trainer: Literal["idle", "starting", "running", "failed"] = "idle"
    recipes: tuple[RecipeReport, ...] = ()
    profile: Short = ""
    profile_version: int = 0


class LatencyHistogram(msgspec.Struct, frozen=True):
    """Counts per fixed upper bound in microseconds, cumulative not; the last bucket has no bound."""

    bounds_us: tuple[int, ...]
    counts: tuple[int, ...]


class Heartbeat(msgspec.Struct, frozen=True):
    """Health of one device, about every ten seconds. Lies outside ε, as the egress statement says."""

    device: Short
    sent_us: int
    agent_version: Short
    uptime_s: float
    pss_bytes: int
    disk_free_bytes: int
    readings_total: int
    quarantined_total: int
    inferences_total: int
    alarms_total: int
    outbox_pending: int
    clock_ok: bool
    broker_connected: bool
    bytes_up: int = 0
    bytes_down: int = 0
    latency: LatencyHistogram | None = None
    state: ReportedState | None = None


class ChannelShare(msgspec.Struct, frozen=True):
    """How much one channel contributes to an anomaly score, in ``[0, 1]``."""

    channel: Short
    share: float


class Alarm(msgspec.Struct, frozen=True, tag="alarm"):
    """An anomaly seen on the device; ``bundle`` is the manifest hash that raised it, empty for the baseline."""

    score: float
    threshold: float
    window_start_us: int
    window_end_us: int
    attribution: tuple[ChannelShare, ...]
    model: Short
    bundle: Hash
    runtime: Short
    precision: Short
    reason: Short


class AlarmCleared(msgspec.Struct, frozen=True, tag="alarm-cleared"):
    """The score is back below the threshold."""

    model: Short
    window_end_us: int
    lasted_s: float


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """Anything else worth telling: a quarantine wave, a trainer that died, a refused bundle, a gap."""

    code: Short
    text: Text


class GapRecord(msgspec.Struct, frozen=True, tag="gap"):
    """Events that a full disk or the outbox's bound forced the device to drop: sequence numbers, inclusive."""

    first: int
    last: int
    reason: Short


EventBody = Alarm | AlarmCleared | Notice | GapRecord


class Event(msgspec.Struct, frozen=True):
    """One entry of the outbox: committed first, deleted only after the server's cumulative acknowledgement."""

    sequence: int
    at_us: int
    severity: Severity
    body: EventBody


class EventBatch(msgspec.Struct, frozen=True):
    """Events in order. ``epoch`` is random, made with the outbox, so that a new disk starts a new count."""

    epoch: Annotated[str, Meta(max_length=32)]
    events: Annotated[tuple[Event, ...], Meta(max_length=256)]


class EventAck(msgspec.Struct, frozen=True):
    """``up_to`` is the highest sequence number below which the server has everything."""

    epoch: str
    up_to: int


class RenewRequest(msgspec.Struct, frozen=True):
    """What a device sends over its present certificate to get the next one, over a new key."""

    csr_pem: Annotated[str, Meta(max_length=4096)]


class RenewResponse(msgspec.Struct, frozen=True):
    """The next certificate; the present one stays usable for an overlap."""

    certificate_pem: str
    ca_pem: str


class TrainerExit(msgspec.Struct, frozen=True):
    """The agent tells that its trainer died, so that the round need not wait for it."""

    job_id: Short
    code: int
    reason: Text = ""


class HeartbeatAck(msgspec.Struct, frozen=True):
    """The server's answer to a heartbeat: its clock, and the revision of what it wants of the device."""

    server_time_us: int
    desired_revision: int


# Made at import: two threads that meet a Struct for the first time at once crash msgspec while it reads the type.
_DECODERS: Final[Mapping[type[msgspec.Struct], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        BundleTarget, DesiredState, Event, EventAck, EventBatch, Heartbeat, HeartbeatAck, JoinRequest, JoinResponse,
        RecipeReport, RenewRequest, RenewResponse, TrainerExit,
    )
}  # fmt: skip
T = TypeVar("T", bound=msgspec.Struct)


def decode(data: bytes | bytearray, kind: type[T]) -> T:
    """Return the message of ``kind`` in ``data`` (JSON); from any thread.

    Raises msgspec.DecodeError for what is none, UnicodeDecodeError, RecursionError, KeyError if ``kind`` is no message.
    """
    found: T = _DECODERS[kind].decode(data)
    return found
