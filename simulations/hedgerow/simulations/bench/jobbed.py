"""The real round loop over a real link, on a database in a folder: one job, run to its end, each round timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hedgerow.server.flower import FlowerLink
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger import tables as _ledger_tables  # noqa: F401 - declares its table
from hedgerow.server.rounds.book import Book
from hedgerow.server.rounds.loop import LoopSettings, RoundLoop, Task
from hedgerow.server.rounds.models import ModelStore
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import RoundResult
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Base, Database
from hedgerow.server.strategies.catalogue import make_aggregator
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.job import DeadlineSpec, Job, PrivacySpec
from hedgerow.shared.packing import Vector

_HASH = "a" * 64


class RoundTimes:
    """Hears the loop; ``commits`` are monotonic seconds, one a round. Anything but a clean round is an error."""

    def __init__(self, cohort: int) -> None:
        self.commits: list[float] = []
        self.problems: list[str] = []
        self._cohort = cohort

    def progress(self, round: int, book: Book) -> None:
        """Ignored."""

    def rejected(self, round: int, device: str, reason: str, detail: str) -> None:
        """Note it."""
        self.problems.append(f"round {round}: {device}: {reason}: {detail}")

    def regressed(self, round: int, device: str, detail: str) -> None:
        """Note it."""
        self.problems.append(f"round {round}: {device}: {detail}")

    def aborted(self, plan: Plan, counted: int, why: str) -> None:
        """Note it."""
        self.problems.append(f"round {plan.round}: {counted} updates: {why}")

    def committed(self, round: int, result: RoundResult, model: Vector, model_sha256: str) -> None:
        """Note the time."""
        del model, model_sha256
        self.commits.append(time.monotonic())
        if result.replied != self._cohort:
            self.problems.append(f"round {round}: {result.replied} of {self._cohort} updates counted")


async def run_job(
    link: FlowerLink, home: Path, job_id: str, devices: Sequence[str], *, n: int, rounds: int
) -> RoundTimes:
    """Run ``rounds`` rounds of an ``n``-value model with all of ``devices``. Raises HedgerowError if any was not clean."""
    database = Database(f"sqlite:///{home / 'bench.db'}")
    Base.metadata.create_all(database.engine)
    job = Job(job_id, "bench", PrivacySpec("none"), rounds=rounds, deadlines=DeadlineSpec(600.0))
    JobStore(database).add(job_id, job, _HASH, n, "bench")
    store = RoundStore(database, ModelStore(Blobs(home / "blobs")))
    aggregator = make_aggregator(job, n)
    store.begin(job_id, np.zeros(n, np.float32), aggregator.initial_state())

    async def population() -> Sequence[str]:
        return devices

    times = RoundTimes(len(devices))
    task = Task(job_id, job, _HASH, n, population)
    try:
        await RoundLoop(task, link, store, aggregator, times, LoopSettings(start_wait_s=120.0)).run()
    finally:
        await link.close_job(job_id)
        database.engine.dispose()
    if times.problems:
        raise HedgerowError("; ".join(times.problems[:5]))
    return times
