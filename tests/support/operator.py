"""A real operator listener over a record kept in memory: the views are values, so the reader needs no database."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from hedgerow.server.api import tables  # noqa: F401  # declares the tables that Operators needs
from hedgerow.server.api.app import create_operator_app
from hedgerow.server.api.context import OperatorContext
from hedgerow.server.api.operators import Audit, Operators, Role
from hedgerow.server.bus import STOPPING, Bus
from hedgerow.server.monitor.alerts import evaluate
from hedgerow.server.monitor.views import (
    AlertView,
    DeviceView,
    EventView,
    JobView,
    ModelView,
    RolloutView,
    RoundView,
    ServingView,
)
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.messages import Severity

NOW = 1_790_000_000_000_000


def device(name: str = "pump-1", **changes: Any) -> DeviceView:
    """Return a healthy device."""
    values: dict[str, Any] = {
        "device": name, "groups": ("pumps",), "status": "online", "last_seen_us": NOW, "agent_version": "0.1.0",
        "profile": "pump", "profile_version": 1, "trainer": "idle", "pss_bytes": 70_000_000, "disk_free_bytes": 10**9,
        "readings_total": 1000, "quarantined_total": 0, "inferences_total": 900, "alarms_total": 0, "bytes_up": 1000,
        "bytes_down": 2000, "latency_p50_us": 40.0, "latency_p99_us": 1500.0,
        "serving": (ServingView("pump", 2, 2, "serving", "onnxruntime", "int8", ""),),
    }  # fmt: skip
    return DeviceView(**(values | changes))


def job(job_id: str = "j1", **changes: Any) -> JobView:
    """Return a running job."""
    values: dict[str, Any] = {
        "job_id": job_id, "name": "pump-anomaly", "recipe": "anomaly-autoencoder", "state": "running", "reason": "",
        "mode": "example", "epsilon_asked": 8.0, "delta_asked": 1e-4, "epsilon": 2.5, "round": 2, "rounds": 8,
        "metric": "auroc", "submitted_us": NOW, "finished_us": None, "model": "pump", "model_version": None,
    }  # fmt: skip
    return JobView(**(values | changes))


def round_view(number: int, score: float = 0.7, epsilon: float | None = 1.0) -> RoundView:
    """Return a committed round."""
    return RoundView(
        number, NOW + number, 1.5, 5, 4, 1, 1, {"non-finite": 1}, 4000, 5000, {"auroc": score}, epsilon
    )


def withheld_round(number: int, epsilon: float = 1.0) -> RoundView:
    """Return a committed round of a central privacy mode: counts and bytes are told to nobody."""
    return RoundView(
        number, NOW + number, 1.5, None, None, None, None, {}, None, None, {"auroc": 0.7}, epsilon
    )


def model(version: int = 2, aliases: tuple[str, ...] = ("champion",)) -> ModelView:
    """Return a registered version."""
    return ModelView(
        "pump", version, "ab" * 32, "anomaly", NOW, aliases, "j1", "anomaly-autoencoder", 7.5, 1e-4, "example",
        (("model.int8.onnx", "onnxruntime", "int8", 9000),), (("agreement", True, 0.99, 0.95),), {"auroc": 0.93},
    )  # fmt: skip


def event(sequence: int, kind: str = "alarm", at_us: int = NOW, device_name: str = "pump-1") -> EventView:
    """Return a device's event."""
    severity: Severity = "critical" if kind == "alarm" else "info"
    return EventView(device_name, sequence, at_us, severity, kind, f"{kind} flow 62 %", {"model": "pump"})


@dataclass
class RecordInMemory:
    """A ``Reader`` over lists."""

    all_devices: list[DeviceView] = field(default_factory=list)
    all_jobs: list[JobView] = field(default_factory=list)
    all_rounds: dict[str, list[RoundView]] = field(default_factory=dict)
    all_models: list[ModelView] = field(default_factory=list)
    all_rollouts: list[RolloutView] = field(default_factory=list)
    all_events: list[EventView] = field(default_factory=list)

    def devices(self) -> list[DeviceView]:
        return sorted(self.all_devices, key=lambda d: d.device)

    def jobs(self, limit: int = 100) -> list[JobView]:
        return self.all_jobs[:limit]

    def job(self, job_id: str) -> JobView | None:
        return next((j for j in self.all_jobs if j.job_id == job_id), None)

    def rounds(self, job_id: str) -> list[RoundView]:
        return list(self.all_rounds.get(job_id, []))

    def models(self) -> list[ModelView]:
        return list(self.all_models)

    def rollouts(self, limit: int = 100) -> list[RolloutView]:
        return self.all_rollouts[:limit]

    def events(self, limit: int = 200, device: str | None = None) -> list[EventView]:
        return [e for e in self.all_events if device in (None, e.device)][:limit]


@dataclass
class RecordedActions:
    """``Actions`` that note what was asked; a name ``missing`` is refused as the server would."""

    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def submit_job(self, toml: str) -> str:
        if "missing" in toml:
            raise ConfigError("job: no recipe 'missing' is installed")
        self.asked.append(("submit", toml))
        return "j9"

    async def cancel_job(self, job_id: str) -> None:
        self.asked.append(("cancel", job_id))

    async def rollback(self, model: str) -> str:
        if model == "missing":
            raise ConfigError("no model 'missing'")
        self.asked.append(("rollback", model))
        return "r9"

    async def join_token(self, groups: Sequence[str], ttl_s: float) -> str:
        self.asked.append(("token", *groups, str(ttl_s)))
        return "hrj1.x"

    async def revoke_device(self, device: str) -> None:
        self.asked.append(("revoke", device))

    async def cohort(self, job_id: str, round_number: int) -> tuple[str, ...]:
        return ("pump-1", "pump-2")


@dataclass
class OperatorListener:
    """A listener on loopback with its record, actions and one token per role."""

    url: str
    record: RecordInMemory
    actions: RecordedActions
    context: OperatorContext
    tokens: dict[Role, str]

    def headers(self, role: Role = Role.ADMIN) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[role]}"}


@contextmanager
def operator_listener(folder: Path, record: RecordInMemory | None = None) -> Iterator[OperatorListener]:
    """Run the operator app on a free loopback port, on its own thread."""
    record = record or RecordInMemory()
    database = Database(f"sqlite:///{folder / 'operator.db'}")
    Base.metadata.create_all(database.engine)
    operators, actions, bus = Operators(database), RecordedActions(), Bus()

    def alerts() -> list[AlertView]:
        return evaluate(record.devices(), record.jobs(), record.rollouts(), record.events(), NOW)

    context = OperatorContext(record, alerts, actions, operators, Audit(database), bus)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_operator_app(context), log_level="warning", lifespan="off", ws="none")
    )

    async def serve() -> None:
        bus.attach(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="operator-listener")
    thread.start()
    tokens = {role: operators.issue(role.name.lower(), role) for role in Role}
    try:
        yield OperatorListener(
            f"http://127.0.0.1:{listener.getsockname()[1]}", record, actions, context, tokens
        )
    finally:
        bus.publish(STOPPING)
        server.should_exit = True
        thread.join(10)
        listener.close()
        database.close()
