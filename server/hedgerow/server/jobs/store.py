"""Jobs on disk: submitted, moved from state to state, read back for operators and after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session, defer

from hedgerow.server.jobs.records import UNFINISHED, CohortRecord, JobRecord, RoundRecord, State
from hedgerow.server.jobs.tables import JobRow
from hedgerow.server.ledger.tables import LedgerHeadRow, PrivacyChargeRow
from hedgerow.server.rounds.tables import ContributionRow, RoundRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.job import CENTRAL_MODES, Job


class JobStore:
    """The jobs' records. Every method blocks on the disk: call it from a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job_id: str, job: Job, recipe_hash: str, n_parameters: int, submitted_by: str) -> None:
        """Write a job in state ``queued``."""
        with self._database.transaction() as session:
            session.execute(
                insert(JobRow).values(
                    id=job_id,
                    name=job.name,
                    state="queued",
                    spec=msgspec.json.encode(job).decode(),
                    submitted_by=submitted_by,
                    recipe_hash=recipe_hash,
                    n_parameters=n_parameters,
                    submitted_at=utc_now(),
                )
            )

    def move(
        self,
        job_id: str,
        state: State,
        *,
        among: Iterable[State] = UNFINISHED,
        reason: str = "",
        result: dict[str, Any] | None = None,
    ) -> bool:
        """Set a job's state if it is one of ``among`` now, and return whether it was."""
        values: dict[str, Any] = {"state": state, "reason": reason[:2000]}
        if state == "running":
            values["started_at"] = func.coalesce(JobRow.started_at, utc_now())
        if state not in UNFINISHED:
            values["finished_at"] = utc_now()
        if result is not None:
            values["result"] = result
        with self._database.transaction() as session:
            changed = session.connection().execute(
                update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(list(among))).values(**values)
            )
            return changed.rowcount == 1

    def get(self, job_id: str) -> JobRecord | None:
        """Return one job, None if there is none of this id."""
        with self._database.transaction() as session:
            found = self._read(session, JobRow.id == job_id, 1)
        return found[0] if found else None

    def recent(self, limit: int) -> list[JobRecord]:
        """Return jobs, newest first."""
        with self._database.transaction() as session:
            return self._read(session, JobRow.number > 0, limit)

    def unfinished(self) -> list[JobRecord]:
        """Return jobs that are not at their end, oldest first."""
        with self._database.transaction() as session:
            found = self._read(session, JobRow.state.in_(list(UNFINISHED)), 10_000)
        return found[::-1]

    def rounds(self, job_id: str) -> list[RoundRecord]:
        """Return a job's committed rounds in order."""
        names = RoundRecord.__struct_fields__
        with self._database.transaction() as session:
            rows = session.execute(
                select(*(getattr(RoundRow, name) for name in names))
                .where(RoundRow.job_id == job_id, RoundRow.state == "committed")
                .order_by(RoundRow.round)
            ).all()
        return [RoundRecord(*row) for row in rows]

    def cohort(self, job_id: str, round: int) -> CohortRecord | None:
        """Return who was drawn into a round, None if it was not planned."""
        with self._database.transaction() as session:
            row = session.get(RoundRow, (job_id, round))
            if row is None:
                return None
            outcomes = session.execute(
                select(
                    ContributionRow.exchange,
                    ContributionRow.device,
                    ContributionRow.outcome,
                    ContributionRow.reason,
                )
                .where(ContributionRow.job_id == job_id, ContributionRow.round == round)
                .order_by(ContributionRow.exchange, ContributionRow.device)
            ).all()
            return CohortRecord(round, tuple(json.loads(row.cohort)), tuple((*one,) for one in outcomes))

    def contributors(self, job_id: str) -> int:
        """Return how many devices a job's model has updates of."""
        counted = (ContributionRow.job_id == job_id) & (ContributionRow.outcome == "counted")
        with self._database.transaction() as session:
            found = session.execute(select(func.count(ContributionRow.device.distinct())).where(counted))
            return int(found.scalar_one())

    def _read(self, session: Session, which: Any, limit: int) -> list[JobRecord]:
        rows = session.execute(
            select(JobRow)
            .options(defer(JobRow.model_inline))
            .where(which)
            .order_by(JobRow.number.desc())
            .limit(limit)
        ).scalars()
        found = list(rows)
        worst = {
            job_id: (epsilon, delta)
            for job_id, epsilon, delta in session.execute(
                select(LedgerHeadRow.job_id, func.max(LedgerHeadRow.epsilon), func.max(LedgerHeadRow.delta))
                .where(LedgerHeadRow.job_id.in_([row.id for row in found]))
                .group_by(LedgerHeadRow.job_id)
            )
        }
        charges = session.execute(
            select(PrivacyChargeRow.job_id, func.max(PrivacyChargeRow.epsilon))
            .where(PrivacyChargeRow.job_id.in_([row.id for row in found]))
            .group_by(PrivacyChargeRow.job_id)
        )
        charged = {row[0]: row[1] for row in charges}
        return [_record(row, *worst.get(row.id, (charged.get(row.id), None))) for row in found]


def _record(row: JobRow, epsilon: float | None, delta: float | None) -> JobRecord:
    job = msgspec.json.decode(row.spec.encode(), type=Job)
    if job.privacy.mode in CENTRAL_MODES and epsilon is not None:
        delta = job.privacy.delta
    return JobRecord(
        job_id=row.id,
        number=row.number,
        job=job,
        state=msgspec.convert(row.state, State),
        reason=row.reason,
        submitted_by=row.submitted_by,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        rounds_done=row.rounds_done,
        n_parameters=row.n_parameters,
        recipe_hash=row.recipe_hash,
        model_sha256=row.model_sha256,
        initial_scores=row.initial_scores,
        epsilon=epsilon,
        delta=delta,
        result=row.result,
    )
