"""The heartbeat and the local status: read from the agent's parts at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple, cast

import msgspec

from hedgerow.edge_agent.clock import LastKnownTime
from hedgerow.edge_agent.inference.engine import Engine
from hedgerow.edge_agent.inference.histogram import merged
from hedgerow.edge_agent.install import Installer
from hedgerow.edge_agent.link.health import disk_free_bytes, pss_bytes
from hedgerow.edge_agent.link.link import LinkStatus
from hedgerow.edge_agent.link.traffic import Traffic
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.edge_agent.recipes import InstalledRecipes
from hedgerow.edge_agent.telemetry.pipeline import Pipeline, TelemetryStatus
from hedgerow.edge_agent.trainer.supervisor import TrainerSupervisor
from hedgerow.shared.messages import BundleReport, Heartbeat, ReportedState
from hedgerow.shared.profile import DeviceProfile

TrainerState = Literal["idle", "starting", "running", "failed"]


class AgentStatus(msgspec.Struct, frozen=True):
    """What ``hedgerow agent status`` and ``GET /v1/status`` tell on the device itself."""

    device: str
    profile: str
    profile_version: int
    uptime_s: float
    pss_bytes: int
    disk_free_bytes: int
    broker_connected: bool
    broker_version: str
    server: LinkStatus
    telemetry: TelemetryStatus
    samples: dict[str, int]
    bundles: tuple[BundleReport, ...]
    alarms_active: tuple[str, ...]
    inferences_total: int
    alarms_total: int
    outbox_pending: int
    trainer: str


class Watched(NamedTuple):
    """The parts that vitals are read from."""

    device: str
    profile: DeviceProfile
    home: Path
    clock: LastKnownTime
    pipeline: Pipeline
    engine: Engine
    installer: Installer
    outbox: Outbox
    supervisor: TrainerSupervisor
    recipes: InstalledRecipes
    traffic: Traffic
    connected: Callable[[], bool]
    revision: Callable[[], int]


class Vitals:
    """Reads the parts. Safe from any thread."""

    def __init__(self, watched: Watched) -> None:
        self._of = watched
        self._started_s = time.monotonic()

    @property
    def uptime_s(self) -> float:
        """Seconds since the agent started."""
        return time.monotonic() - self._started_s

    def heartbeat(self) -> Heartbeat:
        """Return what the server hears. Raises StorageError if the outbox cannot be read."""
        of = self._of
        telemetry = of.pipeline.status()
        up, down = of.traffic.totals()
        histograms = list(of.engine.latency().values())
        return Heartbeat(
            device=of.device,
            sent_us=time.time_ns() // 1000,
            agent_version=agent_version(),
            uptime_s=self.uptime_s,
            pss_bytes=pss_bytes(),
            disk_free_bytes=disk_free_bytes(of.home),
            readings_total=telemetry.readings,
            quarantined_total=telemetry.quarantined,
            inferences_total=of.engine.predictions_total,
            alarms_total=of.engine.alarms_total,
            outbox_pending=of.outbox.pending(),
            clock_ok=of.clock.clock_ok() and telemetry.clock_ok,
            broker_connected=of.connected(),
            bytes_up=up,
            bytes_down=down,
            latency=merged(histograms) if histograms else None,
            state=self.reported(),
        )

    def reported(self) -> ReportedState:
        """Return the answer to the desired state."""
        of = self._of
        return ReportedState(
            revision=of.revision(),
            bundles=of.installer.reports(),
            trainer=cast("TrainerState", of.supervisor.state()),
            recipes=of.recipes.found(),
            profile=of.profile.name,
            profile_version=of.profile.version,
        )


@cache
def agent_version() -> str:
    """Return the installed version of Hedgerow."""
    try:
        return version("hedgerow")
    except PackageNotFoundError:
        return "unknown"
