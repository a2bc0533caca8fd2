"""The server's privacy ledger on disk: accounts opened once, rounds reserved with their plan, charged with their release.

``reserve`` and ``charge`` run inside the transactions that write a round's plan and its release (``rounds.store``): a
model is public only if its charge is on the disk, and a charge is there only with its model. A round can be charged once,
and none beyond those that were planned.
"""

from __future__ import annotations

import threading
from typing import Any, Final, cast

import msgspec
from sqlalchemy import Connection, Table, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from hedgerow.server.jobs.records import UNFINISHED
from hedgerow.server.jobs.tables import JobRow
from hedgerow.server.ledger.budget import Account, Opening, open_account
from hedgerow.server.ledger.chain import Charged, charge_hash, opening_hash, verify_chain
from hedgerow.server.ledger.tables import PrivacyAccountRow, PrivacyChargeRow
from hedgerow.server.rounds.tables import ContributionRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import BudgetError, IntegrityError, StorageError
from hedgerow.shared.job import CENTRAL_MODES, Job
from hedgerow.shared.privacy.central import CentralPlan
from hedgerow.shared.privacy.central_report import CentralRecord
from hedgerow.shared.privacy.events import PrivacyEvent
from hedgerow.shared.unreadable import UNREADABLE

DEFAULT_DEVICE_BUDGET: Final = 10.0
_ACCOUNTS = cast("Table", PrivacyAccountRow.__table__)
_CHARGES = cast("Table", PrivacyChargeRow.__table__)
_OPENED: Final = select(_ACCOUNTS.c.rounds, _ACCOUNTS.c.hash).where(_ACCOUNTS.c.job_id == bindparam("of_job"))
_HASH_OF_ROUND: Final = select(_CHARGES.c.hash).where(
    _CHARGES.c.job_id == bindparam("of_job"), _CHARGES.c.round == bindparam("at_round")
)
_RESERVE: Final = insert(_CHARGES)
_CHARGE: Final = update(_CHARGES).where(
    _CHARGES.c.job_id == bindparam("of_job"),
    _CHARGES.c.round == bindparam("at_round"),
    _CHARGES.c.state == "reserved",
)


class PrivacyLedger:
    """Accounts of central jobs. ``device_budget`` is the ε that a device may be charged in all, at each job's δ.

    Every method blocks on the disk, and on accounting: call it from a thread.
    """

    def __init__(self, database: Database, device_budget: float = DEFAULT_DEVICE_BUDGET) -> None:
        self._database = database
        self._device_budget = device_budget
        # From what was spent to the account that relies on it: one job at a time.
        self._opening = threading.Lock()

    def preview(self, job: Job, devices: tuple[str, ...]) -> Account:
        """Return the account that ``job`` would get now. Raises as ``open``; writes nothing."""
        return open_account(self._opened("", job, devices), self.accounts(), self._device_budget)

    def open(self, job_id: str, job: Job, devices: tuple[str, ...]) -> Account:
        """Return the job's account; opened now, over these devices for good, unless it was before.

        Raises BudgetError if the budget does not allow it, ConfigError as ``plan_central``.
        """
        with self._opening:
            known = self.account(job_id)
            if known is not None:
                return known
            account = open_account(self._opened(job_id, job, devices), self.accounts(), self._device_budget)
            with self._database.transaction() as session:
                session.execute(insert(PrivacyAccountRow).values(**_columns(account, job.privacy.mode)))
        return account

    def account(self, job_id: str) -> Account | None:
        """Return one job's account, None if it has none."""
        return next((account for account in self.accounts(job_id)), None)

    def record(self, job_id: str) -> CentralRecord | None:
        """Return what a finished job's report is made of, None if it has no account. Raises as ``verify``."""
        account = self.account(job_id)
        return None if account is None else account.record(self.verify(job_id))

    def verify(self, job_id: str) -> str:
        """Recompute the chain of a job's charges and return its end.

        Raises IntegrityError if anything was altered, StorageError if the job has no account.
        """
        account = self.account(job_id)
        if account is None:
            raise StorageError(f"job {job_id} has no account in the privacy ledger")
        columns = (
            PrivacyChargeRow.round,
            PrivacyChargeRow.epsilon,
            PrivacyChargeRow.model_sha256,
            PrivacyChargeRow.hash,
        )
        query = (
            select(*columns)
            .where(PrivacyChargeRow.job_id == job_id, PrivacyChargeRow.state == "charged")
            .order_by(PrivacyChargeRow.round)
        )
        with self._database.transaction() as session:
            charges = [Charged(*row) for row in session.execute(query)]
        return verify_chain(account, charges)

    def accounts(self, job_id: str | None = None) -> list[Account]:
        """Return all accounts, or the one of ``job_id``, with how far they are. Raises IntegrityError if damaged."""
        begun = (
            select(PrivacyChargeRow.job_id, func.count().label("n"))
            .group_by(PrivacyChargeRow.job_id)
            .subquery()
        )
        query = (
            select(PrivacyAccountRow, begun.c.n, JobRow.state)
            .outerjoin(begun, begun.c.job_id == PrivacyAccountRow.job_id)
            .outerjoin(JobRow, JobRow.id == PrivacyAccountRow.job_id)
        )
        if job_id is not None:
            query = query.where(PrivacyAccountRow.job_id == job_id)
        with self._database.transaction() as session:
            return [
                _account(row, n or 0, state not in UNFINISHED) for row, n, state in session.execute(query)
            ]

    def _opened(self, job_id: str, job: Job, devices: tuple[str, ...]) -> Opening:
        with self._database.transaction() as session:
            exposed = _exposed(session)
        return Opening(job_id, job, devices, not exposed.isdisjoint(devices))


def reserve(connection: Connection, job_id: str, round: int) -> None:
    """Reserve a round of a job that has an account; nothing to do for the others.

    Raises BudgetError for a round that was not planned; a second reservation breaks the table's key.
    """
    opened = connection.execute(_OPENED, {"of_job": job_id}).one_or_none()
    if opened is None:
        return
    if not 1 <= round <= opened.rounds:
        raise BudgetError(
            f"job {job_id}: round {round} is not one of the {opened.rounds} in the privacy ledger"
        )
    values = {"job_id": job_id, "round": round, "state": "reserved", "reserved_at": utc_now()}
    connection.execute(_RESERVE, values | {"model_sha256": "", "hash": ""})


def charge(connection: Connection, job_id: str, round: int, epsilon: float | None, model_sha256: str) -> None:
    """Turn a round's reservation into its charge for this model; nothing to do for a job without an account.

    Raises IntegrityError if it is not reserved, or charged already: then nothing of the transaction may stand.
    """
    opened = connection.execute(_OPENED, {"of_job": job_id}).one_or_none()
    if opened is None:
        return
    before = connection.execute(
        _HASH_OF_ROUND, {"of_job": job_id, "at_round": round - 1}
    ).scalar_one_or_none()
    values: dict[str, Any] = {
        "state": "charged",
        "epsilon": epsilon,
        "model_sha256": model_sha256,
        "hash": charge_hash(before or opened.hash, round, epsilon, model_sha256),
        "charged_at": utc_now(),
    }
    done = connection.execute(_CHARGE, {"of_job": job_id, "at_round": round} | values)
    if done.rowcount != 1:
        raise IntegrityError(f"job {job_id}: round {round} is not reserved in the privacy ledger")


def _exposed(session: Session) -> set[str]:
    """Return the devices of which some job has released updates without device-level privacy."""
    counted = (
        select(ContributionRow.device)
        .distinct()
        .where(
            ContributionRow.outcome == "counted",
            ContributionRow.job_id.not_in(
                select(PrivacyAccountRow.job_id).where(PrivacyAccountRow.mode.in_(sorted(CENTRAL_MODES)))
            ),
        )
    )
    return set(session.execute(counted).scalars())


def _columns(account: Account, mode: str) -> dict[str, Any]:
    return {
        "job_id": account.job_id,
        "mode": mode,
        "devices": _text(account.devices),
        "plan": _text(account.plan),
        "earlier": _text(account.earlier),
        "earlier_unprotected": account.earlier_unprotected,
        "rounds": account.plan.rounds,
        "hash": opening_hash(account),
        "opened_at": utc_now(),
    }


def _account(row: PrivacyAccountRow, begun: int, closed: bool) -> Account:
    try:
        return Account(
            job_id=row.job_id,
            devices=msgspec.json.decode(row.devices.encode(), type=tuple[str, ...]),
            plan=msgspec.json.decode(row.plan.encode(), type=CentralPlan),
            earlier=msgspec.json.decode(row.earlier.encode(), type=tuple[PrivacyEvent, ...]),
            earlier_unprotected=row.earlier_unprotected,
            begun=begun,
            closed=closed,
        )
    except (ValueError, *UNREADABLE) as error:
        raise IntegrityError(f"the privacy account of job {row.job_id} is damaged: {error}") from error


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
