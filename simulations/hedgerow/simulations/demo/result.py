"""What the demo found, as one value: printed as tables or as one JSON object."""

from __future__ import annotations

import msgspec

from hedgerow.simulations.demo.detection import Detection, Planted


class DeviceResult(msgspec.Struct, frozen=True):
    """One device at the end. ``epsilon`` and ``delta`` are recomputed from its ledger file by dp-accounting."""

    device: str
    epsilon: float
    delta: float
    delta_allowed: float
    steps: int
    runtime: str
    precision: str
    pss_bytes: int
    link_up_bytes: int
    link_down_bytes: int


class JobResult(msgspec.Struct, frozen=True):
    """One training with the scores that the federated model is judged beside, on the recipe's public set."""

    job_id: str
    name: str
    mode: str
    rounds: int
    seconds: float
    metric: str
    untrained: float
    local_only: float
    federated: float
    pooled: float
    bytes_up_per_device: float
    bytes_down_per_device: float
    model: str
    version: int
    manifest_sha256: str
    serving: int
    artefacts: dict[str, dict[str, float]]


class AlarmResult(msgspec.Struct, frozen=True):
    """The planted fault's alarm and where it was seen."""

    device: str
    top_channel: str
    bundle: str
    runtime: str
    precision: str
    delay_windows: int
    on_device: bool
    on_mqtt: bool
    in_events: bool
    on_dashboard: bool


class LabelledResult(msgspec.Struct, frozen=True):
    """Alarms against a recording's labels, over all rows replayed; shares in ``[0, 1]``."""

    rows: int
    f1: float
    false_alarm_rate: float
    missed_alarm_rate: float


class DemoResult(msgspec.Struct, frozen=True):
    """Everything. ``shortfalls`` says in which steps it fell short; the demo succeeds when it is empty."""

    success: bool
    seconds: float
    source: str
    broker: str
    jobs: tuple[JobResult, ...]
    devices: tuple[DeviceResult, ...]
    detection: tuple[Detection, ...]
    planted: Planted | None
    alarm: AlarmResult | None
    labelled: LabelledResult | None
    shortfalls: tuple[str, ...]
    dashboard: str = ""
