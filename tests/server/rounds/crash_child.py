"""A server that runs one job and kills itself at a named point; started as a process by ``test_crash``.

Usage: ``crash_child HOME POINT RULE``. With POINT ``none`` it runs to the end and prints the trained model's SHA-256.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.fake_fleet import FakeFleet
from tests.support.job_parts import Handover, make_parts, names

from hedgerow.server.jobs.service import JobService
from hedgerow.server.rounds.link import Reply
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import Commit
from hedgerow.server.rounds.store import RoundStore
from hedgerow.shared.bundle import sha256_hex

ROUNDS = 5
CRASH_ROUND = 3
PARAMETERS = 40_000  # large enough to lie in a blob, not in the row

JOB = """
name = "crash"
recipe = "vector"
rounds = {rounds}
parameters = {{ n = {n} }}
[privacy]
{privacy}
[cohort]
{cohort}
"""
COHORTS = {
    "all": 'rule = "all"',
    "fixed": 'rule = "fixed"\nsize = 3',
    "poisson": 'rule = "poisson"\nrate = 0.7',
}
EXAMPLE = 'mode = "example"\nepsilon = 8.0\ndelta = 1e-5'
CENTRAL = 'mode = "central-poisson"\nnoise_multiplier = 2.0\ndelta = 1e-3'


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class CrashingStore(RoundStore):
    """The real store, with a trap before its plan, before its blob, between blob and row, and after its commit."""

    point = "none"

    def plan(self, plan: Plan) -> None:
        if self.point == "before-plan":
            die()
        super().plan(plan)
        if self.point == "after-plan":
            die()

    def commit(self, commit: Commit) -> str:
        last = commit.plan.round == CRASH_ROUND
        if last and self.point == "released":
            die()  # noise was drawn for this round, and nobody has seen it
        if last and self.point == "before-blob":
            die()
        if last and self.point == "after-blob":
            self._models.put(commit.model)
            die()
        if last and self.point == "mid-transaction":
            self._database.engine.dispose()
            with self._database.transaction() as session:
                self._write_round(session.connection(), commit, "0" * 64)
                session.flush()
                die()
        digest = super().commit(commit)
        if last and self.point == "after-commit":
            die()
        return digest


class CrashingFleet(FakeFleet):
    """A fleet whose server dies while it waits for the rest of a round."""

    point = "none"
    taken = 0

    async def next_reply(self, job_id: str, timeout_s: float) -> Reply | None:
        reply = await super().next_reply(job_id, timeout_s)
        if reply is not None and reply.header is not None and reply.header.round == CRASH_ROUND:
            self.taken += 1
            if self.point == "mid-collect" and self.taken == 2:
                die()
        return reply


async def main(home: Path, point: str, rule: str) -> None:
    fleet = CrashingFleet(names(5))
    fleet.point = point
    parts = make_parts(home, fleet)
    parts.rounds.__class__ = CrashingStore
    CrashingStore.point = point
    service = JobService(parts)
    await service.start()
    if not await service.recent():
        privacy = CENTRAL if rule == "poisson" else EXAMPLE
        job = JOB.format(rounds=ROUNDS, n=PARAMETERS, privacy=privacy, cohort=COHORTS[rule])
        await service.submit(job.encode(), "crash.toml")
    while (await service.recent())[0].state not in ("delivered", "failed"):
        await asyncio.sleep(0.01)
    record = (await service.recent())[0]
    await service.stop()
    await fleet.stop()
    assert record.state == "delivered", record.reason
    handover = parts.on_trained
    assert isinstance(handover, Handover)
    sys.stdout.write(sha256_hex(handover.jobs[0].model))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
