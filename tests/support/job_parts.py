"""A job service over a real database and real blobs, with a fake fleet and a workbench that needs no torch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.support.fake_fleet import FakeFleet

from hedgerow.server.bus import Bus
from hedgerow.server.jobs.run import Parts
from hedgerow.server.jobs.seams import TrainedJob
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger.accounts import PrivacyLedger
from hedgerow.server.rounds.loop import LoopSettings
from hedgerow.server.rounds.models import ModelStore
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import PopulationSpec
from hedgerow.shared.messages import JobAssignment

HASH = "a" * 64


class Description(msgspec.Struct, frozen=True):
    n_parameters: int
    recipe_hash: str


class PlainBench:
    """A workbench for a recipe whose model is a vector; its score is the mean, so that tests can follow it."""

    def __init__(self, n: int = 100) -> None:
        self.n = n
        self.score_s = 0.0
        self.scored = 0

    async def describe(self, recipe: str, parameters: dict[str, Any]) -> Description:
        if recipe != "vector":
            raise ConfigError(f"no recipe {recipe!r} is installed; there are vector")
        if set(parameters) - {"n"}:
            raise ConfigError(f"unknown parameters {sorted(set(parameters) - {'n'})}")
        return Description(int(parameters.get("n", self.n)), HASH)

    async def initial(self, recipe: str, parameters: dict[str, Any], seed: int) -> bytes:
        n = int(parameters.get("n", self.n))
        return ((np.arange(n) + seed) % 5).astype("<f4").tobytes()

    async def score(self, recipe: str, parameters: dict[str, Any], model: bytes) -> dict[str, float]:
        await asyncio.sleep(self.score_s)
        self.scored += 1
        vector = np.frombuffer(model, "<f4")
        return {"mean": float(vector.mean()) if vector.size else 0.0}


class Registry:
    """Registered devices and what they were asked to do."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.hashes: dict[str, str | None] = {}
        self.assigned: dict[str, set[str]] = {}
        self.cleared: list[str] = []

    def population(self, spec: PopulationSpec) -> Sequence[str]:
        return [n for n in self.names if not spec.devices or n in spec.devices]

    def recipe_hashes(self, recipe: str, devices: Sequence[str]) -> Mapping[str, str | None]:
        return {d: self.hashes[d] for d in devices if d in self.hashes}

    def set_job(self, devices: Sequence[str], assignment: JobAssignment) -> None:
        self.assigned.setdefault(assignment.job_id, set()).update(devices)

    def clear_job(self, job_id: str) -> None:
        self.cleared.append(job_id)


class Handover:
    """Takes trained jobs."""

    def __init__(self) -> None:
        self.jobs: list[TrainedJob] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, trained: TrainedJob) -> dict[str, Any]:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.jobs.append(trained)
        return {"model": trained.job.name, "version": len(self.jobs)}


def names(n: int) -> list[str]:
    """Return ``n`` device names."""
    return [f"device-{i}" for i in range(1, n + 1)]


def open_database(home: Path) -> Database:
    """Return the database of a server's home with its tables."""
    database = Database(f"sqlite:///{home / 'hedgerow.db'}")
    Base.metadata.create_all(database.engine)
    return database


def make_parts(
    home: Path,
    fleet: FakeFleet,
    *,
    database: Database | None = None,
    bench: PlainBench | None = None,
    registry: Registry | None = None,
    settings: LoopSettings | None = None,
) -> Parts:
    """Return the parts of a job service at ``home``."""
    database = database or open_database(home)
    registry = registry or Registry(sorted(fleet.names))
    bus = Bus()
    bus.attach(asyncio.get_running_loop())
    return Parts(
        jobs=JobStore(database),
        rounds=RoundStore(database, ModelStore(Blobs(home / "blobs" / "rounds"))),
        bus=bus,
        link=fleet,
        bench=bench or PlainBench(),
        fleet=registry,
        desired=registry,
        on_trained=Handover(),
        settings=settings or LoopSettings(start_wait_s=1.0, rejoin_wait_s=0.5),
        ledger=PrivacyLedger(database),
    )
