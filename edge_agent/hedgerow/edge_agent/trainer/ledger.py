"""The device's privacy ledger: charges are written before training, updates before they leave.

The order is what makes it sound, whatever dies when:

1. ``open_job`` fixes the plan, with noise calibrated for all rounds, and counts it against every other job at once.
2. ``reserve`` charges an exchange's steps, durably, before any noise is drawn.
3. ``release`` stores the packed update with its entry in one durable transaction; only then may it be sent.

A process killed between 2 and 3 has shown nothing to anyone, so the retry trains again under the same charge. Killed
after 3, the retry sends the stored bytes: one noisy release, however often it travels. An exchange released once is
never trained again, not for another model either.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import BudgetError, IntegrityError, StorageError
from hedgerow.shared.privacy.entries import (
    Body,
    JobClosed,
    JobOpened,
    Released,
    Reserved,
    Unprotected,
    new_entry,
)
from hedgerow.shared.privacy.ledger_file import SCHEMA, SCHEMA_VERSION, Chain, read_entries
from hedgerow.shared.privacy.state import LedgerState

BUSY_TIMEOUT_S = 60.0


class StoredUpdate(msgspec.Struct, frozen=True):
    """An update that was released before, to be sent again as it was."""

    payload: bytes
    head: str


class DeviceLedger:
    """One device's ledger file; several processes may hold it, each append is one locked, durable transaction."""

    def __init__(self, path: Path) -> None:
        """Open or create the ledger and verify all of it.

        Raises IntegrityError if it was altered, StorageError if it cannot be opened.
        """
        self._path = path
        self._chain = Chain()
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)
            self._check_version()
            self._catch_up()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
            ):
                raise IntegrityError(f"{path}: the privacy ledger is damaged: {error}") from error
            raise StorageError(f"{path}: the privacy ledger cannot be opened: {error}") from error

    def _check_version(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found not in (0, SCHEMA_VERSION):
            raise StorageError(f"{self._path}: ledger schema {found}; this version reads {SCHEMA_VERSION}")
        if found == 0:
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._db.close()

    def head(self) -> str:
        """Return the hash of the last entry, in hexadecimal: it commits to the whole ledger and tells nothing of it."""
        return self._chain.head.hex()

    def length(self) -> int:
        """Return how many entries the ledger has: it only grows."""
        return self._chain.length

    def state(self) -> LedgerState:
        """Return what the entries add up to, including those that other processes appended."""
        self._catch_up()
        return self._chain.state

    def open_job(self, make: Callable[[LedgerState], JobOpened]) -> JobOpened:
        """Append the plan that ``make`` decides from the present state, while nobody else can append."""
        with self._transaction():
            opened = make(self._chain.state)
            self._append(opened)
        return opened

    def open_unprotected(self, job: Unprotected) -> None:
        """Record that a job without privacy begins to train on these samples; once per job."""
        with self._transaction():
            if job.job_id not in self._chain.state.unprotected:
                self._append(job)

    def reserve(self, job_id: str, round_number: int, exchange: int, request: str) -> StoredUpdate | None:
        """Charge the steps of an exchange before it is trained; return the update instead if it was released before.

        An exchange that was reserved and never released keeps its charge. Raises BudgetError if the job is closed,
        has used all its rounds, or has released this exchange for another ``request``.
        """
        key = (round_number, exchange)
        with self._transaction():
            account = self._chain.state.jobs[job_id]
            if key in account.released:
                return self._stored(account.released[key], request)
            if account.closed:
                raise BudgetError(f"job {job_id} is closed in the privacy ledger")
            if key not in account.reserved:
                if len(account.reserved) >= account.opened.rounds:
                    raise BudgetError(f"job {job_id} has used the {account.opened.rounds} rounds it planned")
                self._append(Reserved(job_id, round_number, exchange, account.opened.steps_per_round))
        return None

    def _stored(self, released: tuple[Released, bytes], request: str) -> StoredUpdate:
        body, entry_hash = released
        row = self._db.execute(
            "SELECT payload FROM updates WHERE job_id = ? AND round = ? AND exchange = ?",
            (body.job_id, body.round, body.exchange),
        ).fetchone()
        if body.request != request or row is None:
            raise BudgetError(
                f"round {body.round} of job {body.job_id} was released before: it is not trained twice"
            )
        if sha256_hex(row[0]) != body.update_sha256:
            raise IntegrityError(f"{self._path}: the stored update of round {body.round} is damaged")
        return StoredUpdate(row[0], entry_hash.hex())

    def release(self, job_id: str, round_number: int, exchange: int, request: str, payload: bytes) -> str:
        """Store the update of a reserved exchange, so that it may leave; return the ledger's head for the reply.

        Updates of the job's other exchanges are dropped: a server never asks for an earlier round again.
        """
        with self._transaction():
            self._append(Released(job_id, round_number, exchange, request, sha256_hex(payload)))
            self._db.execute("DELETE FROM updates WHERE job_id = ?", (job_id,))
            self._db.execute(
                "INSERT INTO updates VALUES (?, ?, ?, ?)", (job_id, round_number, exchange, payload)
            )
        return self.head()

    def close_job(self, job_id: str) -> None:
        """Give back what an unfinished job had planned and not reserved; it can charge nothing after this."""
        with self._transaction():
            account = self._chain.state.jobs.get(job_id)
            if account is not None and not account.closed:
                self._append(JobClosed(job_id))
                self._db.execute("DELETE FROM updates WHERE job_id = ?", (job_id,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the write lock; what was appended is durable at the end, or undone. Raises StorageError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._catch_up()
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._undo()
                raise
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: the privacy ledger cannot be written: {error}") from error

    def _append(self, body: Body) -> None:
        entry = new_entry(self._chain.length + 1, self._chain.head, body, time.time_ns() // 1000)
        self._chain.extend(entry)
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            (entry.sequence, entry.previous, entry.salt, entry.at_us, entry.raw, entry.hash),
        )

    def _catch_up(self) -> None:
        for entry in read_entries(self._db, self._chain.length):
            self._chain.extend(entry)

    def _undo(self) -> None:
        """Forget what was appended, on disk and in memory. A full disk has SQLite roll back by itself."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._chain = Chain()
        self._catch_up()
