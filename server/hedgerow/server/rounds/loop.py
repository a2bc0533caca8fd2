"""The round loop of one job: plan, ask, collect, release, commit, until its rounds are done.

What it decides lies in ``plan``, ``rules`` and ``waiting``; what it keeps in ``store``. Stopped at any point, by
cancellation or by ``kill -9``, it goes on from the last committed round with the plan that was drawn for the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from hedgerow.server.aggregation.aggregator import AggregationError, Aggregator, Released
from hedgerow.server.ledger.heads import Claim
from hedgerow.server.rounds.book import Book
from hedgerow.server.rounds.collect import Collector, Watch
from hedgerow.server.rounds.exchange import Exchange, Question, TrainExchange
from hedgerow.server.rounds.link import FleetLink
from hedgerow.server.rounds.models import model_bytes
from hedgerow.server.rounds.plan import Plan, draw_cohort
from hedgerow.server.rounds.records import Commit, RoundResult
from hedgerow.server.rounds.rules import Release, may_release
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.rounds.waiting import Presence
from hedgerow.shared import limits
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.job import Job
from hedgerow.shared.packing import Vector


class LoopSettings(msgspec.Struct, frozen=True):
    """How patient the loop is. ``start_wait_s``: for trainers to start before the first round. ``rejoin_wait_s``: for a device
    that is away, in all. ``max_attempts``: at one round, in jobs without privacy.
    """

    start_wait_s: float = 30.0
    rejoin_wait_s: float = 30.0
    max_attempts: int = 3


class Task(NamedTuple):
    """One job as the loop needs it; ``population`` returns the registered devices that may be drawn now.

    In central modes that is the frozen population, and ``epsilon_after`` gives what so many rounds have cost.
    """

    job_id: str
    job: Job
    recipe_hash: str
    n_parameters: int
    population: Callable[[], Awaitable[Sequence[str]]]
    epsilon_after: Callable[[int], float] | None = None


class News(Protocol):
    """Who hears what the loop does. Called on the event loop, never waited for."""

    def progress(self, round: int, book: Book) -> None:
        """One more reply was taken in."""

    def rejected(self, round: int, device: str, reason: str, detail: str) -> None:
        """A reply was refused."""

    def regressed(self, round: int, device: str, detail: str) -> None:
        """A device shows an older privacy ledger than the one it committed to."""

    def aborted(self, plan: Plan, counted: int, why: str) -> None:
        """An attempt at a round without privacy could not be released."""

    def committed(self, round: int, result: RoundResult, model: Vector, model_sha256: str) -> None:
        """A round is on the disk."""


class QuorumError(HedgerowError):
    """A job without privacy did not get the updates that its quorum or its strategy needs, however often it tried."""


class RoundLoop:
    """Runs one job's rounds over the link."""

    def __init__(
        self,
        task: Task,
        link: FleetLink,
        store: RoundStore,
        aggregator: Aggregator,
        news: News,
        settings: LoopSettings,
    ) -> None:
        self._task = task
        self._link = link
        self._store = store
        self._aggregator = aggregator
        self._news = news
        self._settings = settings
        self._heads: dict[str, Claim] = {}
        self._presence = Presence(time.monotonic())

    async def run(self) -> Vector:
        """Return the trained model.

        Raises QuorumError, StorageError.
        """
        task = self._task
        progress = await asyncio.to_thread(self._store.load, task.job_id)
        self._heads = progress.heads
        done, current, plan = progress.rounds_done, Released(progress.model, progress.state), progress.plan
        if done >= task.job.rounds:
            return current.model
        await self._link.open_job(task.job_id, task.job.wire)
        if plan is None:
            plan = await self._draw(done + 1, 1)
            await asyncio.to_thread(self._store.plan, plan)
        await self._gather()
        model_sha256 = self._offer(current.model)
        while plan is not None:
            await self._somebody()
            plan, current, model_sha256 = await self._round(plan, current, model_sha256)
        return current.model

    async def _gather(self) -> None:
        """Give the trainers of all registered devices time to start, so that the first round finds them."""
        wanted = len(await self._task.population())
        self._presence = Presence(time.monotonic())
        await self._link.wait_online(self._task.job_id, wanted, self._settings.start_wait_s)

    async def _somebody(self) -> None:
        """Begin no round while the whole population is away: rounds would burn without anybody to hear them.

        This looks at the population, not at who was drawn, and at presence, not at replies.
        """
        while not self._link.online(self._task.job_id):
            await self._link.wait_online(self._task.job_id, 1, 3600.0)

    async def _round(
        self, plan: Plan, current: Released, model_sha256: str
    ) -> tuple[Plan | None, Released, str]:
        """Run one attempt; return the next plan (None when the job is done), the model and its hash."""
        job, begun = self._task.job, time.monotonic()
        total = self._aggregator.open(plan.round, current.state)
        exchange = TrainExchange(
            self._question(plan, current.model, model_sha256),
            total,
            self._heads,
            lambda device, detail: self._news.regressed(plan.round, device, detail),
        )
        exchanges: list[Exchange] = [exchange]
        deadline = begun + job.deadlines.round_s
        books, epsilon = await asyncio.gather(
            self._ask(plan, exchanges, deadline), self._epsilon_after(plan.round)
        )
        decision = may_release(job, total.count)
        if decision is Release.ABORT:
            why = f"{total.count} updates, its quorum is {job.cohort.quorum}"
            return await self._retry(plan, total.count, why), current, model_sha256
        try:
            released = await _maybe_thread(total.release, current.model)
        except AggregationError as error:
            return await self._retry(plan, total.count, str(error)), current, model_sha256
        result = _result(plan, books, exchange, decision, current.model.nbytes, time.monotonic() - begun)
        if epsilon is not None:
            result = msgspec.structs.replace(result, epsilon=epsilon)
        following = await self._draw(plan.round + 1, 1) if plan.round < job.rounds else None
        contributions = tuple(tuple(book.contributions.values()) for book in books)
        commit = Commit(
            plan, result, contributions, exchange.claims, released.model, released.state, following
        )
        stored_sha256 = await asyncio.to_thread(self._store.commit, commit)
        self._heads |= exchange.claims
        offered = self._offer(released.model) if following else stored_sha256
        self._news.committed(plan.round, result, released.model, stored_sha256)
        return following, released, offered

    async def _ask(self, plan: Plan, exchanges: Sequence[Exchange], deadline: float) -> list[Book]:
        return [await self._collect(plan, one, deadline) for one in exchanges]

    async def _epsilon_after(self, round: int) -> float | None:
        """Return what ``round`` rounds cost in a central mode; reckoned while the devices train."""
        curve = self._task.epsilon_after
        return None if curve is None else await asyncio.to_thread(curve, round)

    async def _collect(self, plan: Plan, exchange: Exchange, deadline: float) -> Book:
        watch = Watch(
            lambda book: self._news.progress(plan.round, book),
            lambda device, reason, detail: self._news.rejected(plan.round, device, reason, detail),
        )
        collector = Collector(self._link, plan, exchange, self._presence, watch, self._settings.rejoin_wait_s)
        return await collector.run(deadline)

    async def _retry(self, plan: Plan, counted: int, why: str) -> Plan:
        """Draw the next attempt at an aborted round. Raises QuorumError after the last."""
        self._news.aborted(plan, counted, why)
        if plan.attempt >= self._settings.max_attempts:
            raise QuorumError(f"round {plan.round} cannot be released after {plan.attempt} attempts: {why}")
        again = await self._draw(plan.round, plan.attempt + 1)
        await asyncio.to_thread(self._store.plan, again)
        await self._link.wait_online(
            self._task.job_id, self._task.job.cohort.quorum, self._settings.rejoin_wait_s
        )
        return again

    async def _draw(self, round: int, attempt: int) -> Plan:
        cohort = draw_cohort(self._task.job.cohort, await self._task.population())
        return Plan(self._task.job_id, round, attempt, cohort)

    def _question(self, plan: Plan, model: Vector, model_sha256: str) -> Question:
        task = self._task
        inline = model.tobytes() if model.nbytes <= limits.MAX_INLINE_MODEL_BYTES else b""
        return Question(
            task.job_id, task.job, plan.round, task.recipe_hash, task.n_parameters, model_sha256, inline
        )

    def _offer(self, model: Vector) -> str:
        """Make ``model`` available to the cohort and return its hash; small models travel in the instruction."""
        data = model_bytes(model)
        if data.nbytes <= limits.MAX_INLINE_MODEL_BYTES:
            return sha256_hex(data)
        return self._link.publish_model(self._task.job_id, data)


def _result(
    plan: Plan,
    books: Sequence[Book],
    exchange: TrainExchange,
    decision: Release,
    model_bytes: int,
    duration_s: float,
) -> RoundResult:
    last = books[-1]
    reasons: dict[str, int] = {}
    for book in books:
        for reason, count in book.rejections().items():
            reasons[reason] = reasons.get(reason, 0) + count
    answered = sum(len(book.cohort) - book.outcomes["missing"] for book in books)
    return RoundResult(
        drawn=len(plan.cohort),
        replied=last.counted,
        rejected=last.outcomes["rejected"],
        dropped=last.outcomes["missing"] + last.outcomes["declined"],
        reasons=reasons,
        below_quorum=decision is Release.RELEASE_WITH_ALERT,
        bytes_up=sum(book.bytes_up for book in books),
        bytes_down=model_bytes * answered,
        duration_s=duration_s,
        epsilon=exchange.epsilon(),
        metrics=exchange.mean_metrics(),
    )


async def _maybe_thread(release: Callable[[Vector], Released], model: Vector) -> Released:
    """Release on a thread where it takes longer than waking one."""
    if model.nbytes <= limits.MAX_INLINE_MODEL_BYTES:
        return release(model)
    return await asyncio.to_thread(release, model)
