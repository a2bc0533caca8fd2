"""A job's rounds on disk: plans before anything is sent, releases in one transaction, progress to resume from."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.orm import Session

from hedgerow.server.jobs.tables import JobRow
from hedgerow.server.ledger.accounts import charge, reserve
from hedgerow.server.ledger.heads import Claim
from hedgerow.server.ledger.store import read_heads
from hedgerow.server.rounds import statements as sql
from hedgerow.server.rounds.models import ModelStore, Stored
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import Commit, Progress
from hedgerow.server.rounds.tables import RoundRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import StorageError
from hedgerow.shared.packing import Vector


class RoundStore:
    """Durable state of the round loop. Every method blocks on the disk: call it from a thread."""

    def __init__(self, database: Database, models: ModelStore) -> None:
        self._database = database
        self._models = models
        # One writer at a time from blob to row: a blob that two jobs share must not go while one of them adopts it.
        self._writing = threading.Lock()

    def begin(self, job_id: str, model: Vector, state: bytes) -> None:
        """Write a job's untrained model, unless the job has one already."""
        with self._writing, self._database.transaction() as session:
            stored, state_sha256 = self._models.put(model), self._models.put_state(state)
            session.execute(
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.model_sha256 == "")
                .values(model_sha256=stored.sha256, model_inline=stored.inline, state_sha256=state_sha256)
            )

    def load(self, job_id: str) -> Progress:
        """Return where the job stands. Raises StorageError if it has no model, or it is damaged."""
        with self._database.transaction() as session:
            row = session.execute(select(JobRow).where(JobRow.id == job_id)).scalar_one()
            if not row.model_sha256:
                raise StorageError(f"job {job_id}: no model was stored yet")
            plan = self._planned(session, job_id, row.rounds_done + 1)
            heads = read_heads(session, job_id)
        model = self._models.get(Stored(row.model_sha256, row.model_inline))
        return Progress(row.rounds_done, model, self._models.get_state(row.state_sha256), plan, heads)

    def plan(self, plan: Plan) -> None:
        """Write a plan, in place of the aborted attempt before it if there is one, and reserve its round in the ledger.

        Raises BudgetError for a round that a central job did not plan.
        """
        with self._database.transaction() as session:
            self._write_plan(session.connection(), plan)

    def commit(self, commit: Commit) -> str:
        """Write one released round and return its model's hash; the plan of the next one goes along.

        The model is on the disk before the transaction begins; in it are the round, its contributions, the ledger heads,
        the privacy ledger's charge and the job's progress, so that a crash leaves all of them or none. Raises StorageError
        if the round is not the one that follows, IntegrityError if it is not reserved: nothing is released twice.
        """
        with self._writing:
            stored, state_sha256 = self._models.put(commit.model), self._models.put_state(commit.state)
            replaced = self._write(commit, stored, state_sha256)
            self._retire(replaced)
        return stored.sha256

    def set_scores(self, job_id: str, round: int, scores: dict[str, float]) -> None:
        """Write the server's score of a round's model; round 0 is the untrained one."""
        with self._database.transaction() as session:
            if round == 0:
                session.execute(update(JobRow).where(JobRow.id == job_id).values(initial_scores=scores))
            else:
                session.execute(
                    update(RoundRow)
                    .where(RoundRow.job_id == job_id, RoundRow.round == round)
                    .values(scores=scores)
                )

    def sweep(self) -> int:
        """Remove models that no job needs any more; to be called while no round runs."""
        with self._database.transaction() as session:
            rows: Sequence[Any] = session.execute(select(JobRow.model_sha256, JobRow.state_sha256)).all()
        return self._models.sweep(frozenset(digest for row in rows for digest in row if digest))

    def _write(self, commit: Commit, stored: Stored, state_sha256: str) -> tuple[str, str]:
        plan = commit.plan
        with self._database.transaction() as session:
            connection = session.connection()
            old = connection.execute(
                sql.CURRENT_MODEL, {"of_job": plan.job_id, "after_rounds": plan.round - 1}
            ).one_or_none()
            if old is None:
                raise StorageError(f"job {plan.job_id}: round {plan.round} is not the one that follows")
            self._write_round(connection, commit, stored.sha256)
            progress = {
                "rounds_done": plan.round,
                "model_sha256": stored.sha256,
                "model_inline": stored.inline,
                "state_sha256": state_sha256,
            }
            connection.execute(sql.SET_PROGRESS, {"of_job": plan.job_id} | progress)
            if commit.next_plan is not None:
                self._write_plan(connection, commit.next_plan)
        return old[0], old[1]

    def _planned(self, session: Session, job_id: str, round: int) -> Plan | None:
        row = session.get(RoundRow, (job_id, round))
        if row is None or row.state != "planned":
            return None
        return Plan(job_id, round, row.attempt, tuple(json.loads(row.cohort)))

    def _write_plan(self, connection: Connection, plan: Plan) -> None:
        values: dict[str, Any] = {
            "state": "planned",
            "attempt": plan.attempt,
            "cohort": json.dumps(plan.cohort),
            "drawn": len(plan.cohort),
            "planned_at": utc_now(),
        }
        if plan.attempt > 1:
            connection.execute(sql.SET_PLAN, {"of_job": plan.job_id, "at_round": plan.round} | values)
        else:
            connection.execute(sql.ADD_PLAN, {"job_id": plan.job_id, "round": plan.round} | values)
            reserve(connection, plan.job_id, plan.round)

    def _write_round(self, connection: Connection, commit: Commit, model_sha256: str) -> None:
        plan, result = commit.plan, commit.result
        values = {name: getattr(result, name) for name in result.__struct_fields__}
        values |= {"state": "committed", "committed_at": utc_now(), "model_sha256": model_sha256}
        connection.execute(sql.SET_ROUND, {"of_job": plan.job_id, "at_round": plan.round} | values)
        charge(connection, plan.job_id, plan.round, result.epsilon, model_sha256)
        rows = [
            {"job_id": plan.job_id, "round": plan.round, "exchange": exchange}
            | {name: getattr(one, name) for name in one.__struct_fields__}
            for exchange, contributions in enumerate(commit.contributions)
            for one in contributions
        ]
        if rows:
            connection.execute(sql.ADD_CONTRIBUTIONS, rows)
        if commit.claims:
            self._write_heads(connection, plan.job_id, commit.claims)

    def _write_heads(self, connection: Connection, job_id: str, claims: dict[str, Claim]) -> None:
        connection.execute(sql.DROP_HEADS, [{"of_job": job_id, "of_device": device} for device in claims])
        fixed = {"job_id": job_id, "updated_at": utc_now()}
        rows = [
            fixed | {"device": device} | {name: getattr(claim, name) for name in claim.__struct_fields__}
            for device, claim in claims.items()
        ]
        connection.execute(sql.ADD_HEADS, rows)

    def _retire(self, replaced: tuple[str, str]) -> None:
        """Remove what the new round replaced, unless a job stands on the same bytes."""
        for digest in filter(self._models.has, replaced):
            with self._database.transaction() as session:
                needed = session.connection().execute(sql.USERS_OF_BLOB, {"digest": digest}).first()
            if needed is None:
                self._models.remove(digest)
