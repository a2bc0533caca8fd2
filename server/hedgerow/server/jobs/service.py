"""The jobs of a server: submit, list, cancel; a queue that runs them and takes them up again after a restart."""

from __future__ import annotations

import asyncio
import logging
import secrets

from hedgerow.server.jobs.queue import Waiting, startable
from hedgerow.server.jobs.records import CohortRecord, JobRecord, RoundRecord, State
from hedgerow.server.jobs.run import JobRun, Parts
from hedgerow.server.jobs.validate import check_fleet, check_job
from hedgerow.server.jobs.written import parse_job
from hedgerow.shared import limits
from hedgerow.shared.errors import BudgetError, ConfigError, HedgerowError
from hedgerow.shared.job import CENTRAL_MODES, Job

_log = logging.getLogger(__name__)


class JobService:
    """Runs jobs one after the other per device, first in, first out. Lives on one event loop.

    Publishes ``job.state``, ``round.progress``, ``round.committed``, ``round.aborted``, ``round.scored``, ``update.rejected``
    and ``ledger.regressed``.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._running: dict[str, tuple[asyncio.Task[None], frozenset[str]]] = {}
        self._cancelled: dict[str, str] = {}
        self._scheduling = asyncio.Lock()
        self._stopping = False

    async def start(self) -> None:
        """Take up unfinished jobs where they were, then serve the queue."""
        await asyncio.to_thread(self._parts.rounds.sweep)
        await self._schedule()

    async def stop(self, deadline_s: float = 10.0) -> None:
        """Stop every job where it is; unfinished ones stay so in the database and go on at the next start."""
        self._stopping = True
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_s)

    async def submit(self, toml: bytes, where: str, submitted_by: str = "") -> JobRecord:
        """Check a job's TOML (or a scenario's ``[job]``) against itself, the recipe and the fleet, and queue it.

        Raises ConfigError naming ``where`` (the file), the key, and what is expected.
        """
        return await self.submit_job(parse_job(toml, where), where, submitted_by)

    async def submit_job(self, job: Job, where: str, submitted_by: str = "") -> JobRecord:
        """Check and queue a job. Raises as ``submit``."""
        parts = self._parts
        check_job(job, where)
        try:
            described = await parts.bench.describe(job.recipe, job.parameters)
        except ConfigError as error:
            raise ConfigError(f"{where}: recipe or parameters: {error}") from error
        if described.n_parameters > limits.MAX_MODEL_PARAMETERS:
            raise ConfigError(
                f"{where}: parameters: the model has {described.n_parameters} parameters, at most "
                f"{limits.MAX_MODEL_PARAMETERS}"
            )
        devices = await asyncio.to_thread(parts.fleet.population, job.population)
        reported = await asyncio.to_thread(parts.fleet.recipe_hashes, job.recipe, devices)
        check_fleet(job, where, described.recipe_hash, devices, reported)
        if job.privacy.mode in CENTRAL_MODES:
            await self._check_budget(job, where, tuple(devices))
        job_id = f"{job.name[:48]}-{secrets.token_hex(4)}"
        await asyncio.to_thread(
            parts.jobs.add, job_id, job, described.recipe_hash, described.n_parameters, submitted_by
        )
        self._tell(job_id, job, "queued")
        await self._schedule()
        return await self._get(job_id)

    async def cancel(self, job_id: str, by: str = "") -> JobRecord:
        """Stop a job for good. Raises ConfigError if there is none, or it is at its end already."""
        record = await self._get(job_id)
        reason = f"cancelled by {by}" if by else "cancelled"
        running = self._running.get(job_id)
        if running is not None:
            self._cancelled[job_id] = reason
            running[0].cancel()
            await asyncio.wait([running[0]])
        elif await asyncio.to_thread(self._parts.jobs.move, job_id, "cancelled", reason=reason):
            self._tell(job_id, record.job, "cancelled", reason)
        after = await self._get(job_id)
        if after.state != "cancelled" or record.state == "cancelled":
            raise ConfigError(f"job {job_id} is {after.state} and cannot be cancelled")
        return after

    async def get(self, job_id: str) -> JobRecord | None:
        """Return one job with its progress, None if there is none."""
        return await asyncio.to_thread(self._parts.jobs.get, job_id)

    async def recent(self, limit: int = 100) -> list[JobRecord]:
        """Return jobs, newest first."""
        return await asyncio.to_thread(self._parts.jobs.recent, limit)

    async def rounds(self, job_id: str) -> list[RoundRecord]:
        """Return a job's committed rounds in order; nothing in them tells who was drawn."""
        return await asyncio.to_thread(self._parts.jobs.rounds, job_id)

    async def cohort_for_admins(self, job_id: str, round: int) -> CohortRecord | None:
        """Return who was drawn into a round and what each did.

        For the admin role only: sampling claims hold against readers who do not see this.
        """
        return await asyncio.to_thread(self._parts.jobs.cohort, job_id, round)

    async def _check_budget(self, job: Job, where: str, devices: tuple[str, ...]) -> None:
        """Refuse a job that the devices' budget does not allow now; its begin looks again, and decides."""
        try:
            await asyncio.to_thread(self._parts.ledger.preview, job, devices)
        except BudgetError as error:
            raise ConfigError(f"{where}: privacy.epsilon: {error}") from error

    async def _get(self, job_id: str) -> JobRecord:
        record = await self.get(job_id)
        if record is None:
            raise ConfigError(f"there is no job {job_id!r}")
        return record

    async def _schedule(self) -> None:
        """Start what may start now."""
        async with self._scheduling:
            if self._stopping:
                return
            records = {r.job_id: r for r in await asyncio.to_thread(self._parts.jobs.unfinished)}
            queue = []
            for job_id, record in records.items():
                if job_id in self._running:
                    continue
                if record.state == "packaging":
                    self._launch(record, frozenset())
                    continue
                devices = await asyncio.to_thread(self._parts.fleet.population, record.job.population)
                queue.append(Waiting(job_id, frozenset(devices)))
            devices_of = {waiting.job_id: waiting.devices for waiting in queue}
            for job_id in startable(queue, [devices for _, devices in self._running.values()]):
                self._launch(records[job_id], devices_of[job_id])

    def _launch(self, record: JobRecord, devices: frozenset[str]) -> None:
        task = asyncio.create_task(self._live(record), name=f"hedgerow-job-{record.job_id}")
        self._running[record.job_id] = (task, devices)

    async def _live(self, record: JobRecord) -> None:
        """Run one job to its end, whichever it is, and let the next ones start."""
        job_id = record.job_id
        run = JobRun(self._parts, record, lambda: self._packaging(record))
        try:
            if record.state != "packaging":
                await self._move(record, "running")
            result = await run.run()
            await self._move(record, "delivered", result=result)
        except asyncio.CancelledError:
            if job_id not in self._cancelled:
                raise  # the server stops; the job goes on at its next start
            await self._end(record, run, "cancelled", self._cancelled.pop(job_id))
        except HedgerowError as error:
            await self._end(record, run, "failed", str(error))
        except Exception as error:  # noqa: BLE001 - recipes and packaging are plug-ins: one job fails, not the server
            _log.exception("job %s failed", job_id)
            await self._end(record, run, "failed", f"{type(error).__name__}: {error}")
        finally:
            self._running.pop(job_id, None)
        await self._schedule()

    async def _packaging(self, record: JobRecord) -> None:
        await self._move(record, "packaging")
        task, _ = self._running[record.job_id]
        self._running[record.job_id] = (task, frozenset())
        await self._schedule()

    async def _end(self, record: JobRecord, run: JobRun, state: State, reason: str) -> None:
        await self._move(record, state, reason=reason)
        try:
            await run.let_go()
        except HedgerowError:
            _log.exception("job %s is %s, but its devices could not all be told", record.job_id, state)

    async def _move(
        self, record: JobRecord, state: State, *, reason: str = "", result: dict[str, object] | None = None
    ) -> None:
        job_id = record.job_id
        if await asyncio.to_thread(self._parts.jobs.move, job_id, state, reason=reason, result=result):
            self._tell(job_id, record.job, state, reason)

    def _tell(self, job_id: str, job: Job, state: State, reason: str = "") -> None:
        self._parts.bus.publish(
            "job.state",
            job_id=job_id,
            name=job.name,
            recipe=job.recipe,
            mode=job.privacy.mode,
            state=state,
            reason=reason,
            rounds=job.rounds,
        )
