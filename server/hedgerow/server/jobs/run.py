"""One job from the queue to its end: devices asked, rounds run, devices let go, the model handed over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np

from hedgerow.server.bus import Bus
from hedgerow.server.jobs.news import JobNews
from hedgerow.server.jobs.population import FrozenPopulation, Population
from hedgerow.server.jobs.records import JobRecord
from hedgerow.server.jobs.scoring import RoundScorer
from hedgerow.server.jobs.seams import Bench, DesiredJobs, Fleet, OnTrained, TrainedJob
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger.accounts import PrivacyLedger
from hedgerow.server.ledger.budget import Account
from hedgerow.server.rounds.link import FleetLink
from hedgerow.server.rounds.loop import LoopSettings, RoundLoop, Task
from hedgerow.server.rounds.models import model_bytes
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.strategies.catalogue import make_aggregator
from hedgerow.shared.errors import ContentError, HedgerowError
from hedgerow.shared.job import CENTRAL_MODES
from hedgerow.shared.messages import JobAssignment
from hedgerow.shared.packing import Vector


class Parts(NamedTuple):
    """What jobs are run with."""

    jobs: JobStore
    rounds: RoundStore
    bus: Bus
    link: FleetLink
    bench: Bench
    fleet: Fleet
    desired: DesiredJobs
    on_trained: OnTrained
    settings: LoopSettings
    ledger: PrivacyLedger


class JobRun:
    """Runs one job. ``trained`` is awaited once its devices are free for the next one."""

    def __init__(self, parts: Parts, record: JobRecord, trained: Callable[[], Awaitable[None]]) -> None:
        self._parts = parts
        self._record = record
        self._trained = trained
        self._scorer = RoundScorer(self._score, self._keep_scores)

    async def run(self) -> dict[str, Any]:
        """Return what the packaging left. Raises whatever ended the job before."""
        parts, record = self._parts, self._record
        try:
            if record.state == "packaging":
                progress = await asyncio.to_thread(parts.rounds.load, record.job_id)
                model = progress.model
            else:
                model = await self._train()
                await self.let_go()
                await self._trained()
            await self._scorer.settle()
            return await parts.on_trained(await self._handover(model))
        finally:
            await self._scorer.stop()

    async def let_go(self) -> None:
        """Tell the job's devices that it wants them no more."""
        job_id = self._record.job_id
        await asyncio.to_thread(self._parts.desired.clear_job, job_id)
        await self._parts.link.close_job(job_id)

    async def _train(self) -> Vector:
        parts, record = self._parts, self._record
        job, job_id = record.job, record.job_id
        account = await self._account() if job.privacy.mode in CENTRAL_MODES else None
        aggregator = make_aggregator(job, record.n_parameters, account.plan if account else None)
        if not record.model_sha256:
            untrained = await self._untrained()
            await asyncio.to_thread(parts.rounds.begin, job_id, untrained, aggregator.initial_state())
            self._scorer.offer(0, untrained)
        assignment = JobAssignment(job_id, job.recipe, record.recipe_hash)
        population = (
            FrozenPopulation(account.devices, parts.desired, assignment)
            if account
            else Population(parts.fleet, parts.desired, job.population, assignment)
        )
        await population()
        curve = account.epsilon_after if account else None
        task = Task(job_id, job, record.recipe_hash, record.n_parameters, population, curve)
        news = JobNews(parts.bus, job_id, job, self._scorer.offer)
        loop = RoundLoop(task, parts.link, parts.rounds, aggregator, news, parts.settings)
        return await loop.run()

    async def _account(self) -> Account:
        """Return the job's account in the privacy ledger: its population is frozen when the job begins, for good."""
        job_id, job = self._record.job_id, self._record.job
        devices = await asyncio.to_thread(self._parts.fleet.population, job.population)
        return await asyncio.to_thread(self._parts.ledger.open, job_id, job, tuple(devices))

    async def _untrained(self) -> Vector:
        record = self._record
        data = await self._parts.bench.initial(record.job.recipe, record.job.parameters, record.job.seed)
        if len(data) != 4 * record.n_parameters:
            raise ContentError(
                f"recipe {record.job.recipe!r}: its first model has {len(data)} bytes, "
                f"{record.n_parameters} float32 values take {4 * record.n_parameters}"
            )
        return np.frombuffer(data, "<f4")

    async def _score(self, model: bytes) -> dict[str, float]:
        return await self._parts.bench.score(self._record.job.recipe, self._record.job.parameters, model)

    async def _keep_scores(self, round: int, scores: dict[str, float]) -> None:
        job_id = self._record.job_id
        await asyncio.to_thread(self._parts.rounds.set_scores, job_id, round, scores)
        self._parts.bus.publish("round.scored", job_id=job_id, round=round, scores=scores)

    async def _handover(self, model: Vector) -> TrainedJob:
        parts, job_id = self._parts, self._record.job_id
        record = await asyncio.to_thread(parts.jobs.get, job_id) or self._record
        rounds = await asyncio.to_thread(parts.jobs.rounds, job_id)
        scores = rounds[-1].scores if rounds else {}
        if not scores:  # a restart came between the last commit and its score
            with contextlib.suppress(
                HedgerowError
            ):  # a model without a score is still a model: the gate decides
                scores = await self._score(bytes(model_bytes(model)))
        devices = await asyncio.to_thread(parts.jobs.contributors, job_id)
        central = await asyncio.to_thread(parts.ledger.record, job_id)
        return TrainedJob(
            job_id=job_id,
            job=record.job,
            recipe_hash=record.recipe_hash,
            model=bytes(model_bytes(model)),
            rounds=record.rounds_done,
            epsilon=record.epsilon,
            delta=record.delta,
            devices=devices,
            scores=scores,
            initial_scores=record.initial_scores,
            central=central,
        )
