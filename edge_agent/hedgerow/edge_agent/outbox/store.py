"""The outbox on disk: SQLite, one row an event, committed before ``put`` returns."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from hedgerow.edge_agent.outbox.bound import Entry, choose, join_gaps
from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.messages import (
    Event,
    EventAck,
    EventBatch,
    EventBody,
    GapRecord,
    Notice,
    Severity,
    decode,
)
from hedgerow.shared.unreadable import UNREADABLE

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    first INTEGER NOT NULL, severity TEXT NOT NULL, gap INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
"""
# Dropping frees a tenth of the bound at once, so that an over-full outbox does not decide anew at every event.
_SLACK: Final = 10


class Outbox:
    """Keeps events until the server has them. Safe from any thread; survives ``kill -9`` and power loss after ``put``.

    ``on_put`` is called after each commit. At the bound the oldest are dropped and a gap record is left for the server.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 16 * limits.MIB,
        max_events: int = 50_000,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Open the outbox, or make one with a new random epoch; a damaged one is moved aside and told of.

        Raises StorageError if neither can be done.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_events = max_events
        self._now_us = now_us
        self._lock = threading.Lock()
        self._unwritten = 0
        self.on_put: Callable[[], None] = lambda: None
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        damaged = self._open_or_replace()
        if damaged is not None:
            self.put("warning", Notice("outbox-damaged", f"a damaged outbox was put aside as {damaged.name}"))

    def put(self, severity: Severity, body: EventBody) -> Event:
        """Commit an event and return it with its number.

        Raises ContentError if it is larger than ``MAX_EVENT_BYTES``, StorageError if the disk refuses: the event is
        lost then, and the next one that can be written brings the count of the lost with it.
        """
        at_us = self._now_us()
        size = len(msgspec.json.encode(Event(2**53, at_us, severity, body)))
        if size > limits.MAX_EVENT_BYTES:
            raise ContentError(f"an event of {size} bytes is larger than {limits.MAX_EVENT_BYTES}")
        with self._lock:
            try:
                with self._transaction() as database:
                    if self._unwritten:
                        text = f"{self._unwritten} events were lost because the disk refused them"
                        _insert(database, at_us, "warning", Notice("outbox-full", text))
                    sequence = _insert(database, at_us, severity, body)
                    self._keep_bound(database)
            except StorageError:
                self._unwritten += 1
                raise
            self._unwritten = 0
        self.on_put()
        return Event(sequence, at_us, severity, body)

    def batch(
        self, limit: int = limits.MAX_EVENTS_PER_BATCH, max_bytes: int = 128 * limits.KIB
    ) -> EventBatch:
        """Return the oldest events that wait, in order; at least one, if there is one. Raises StorageError."""
        events: list[Event] = []
        total = 0
        with self._lock, self._transaction() as database:
            query = "SELECT size, body, sequence, first FROM events ORDER BY sequence LIMIT ?"
            for size, body, sequence, first in database.execute(
                query, (min(limit, limits.MAX_EVENTS_PER_BATCH),)
            ):
                total += size
                if events and total > max_bytes:
                    break
                events.append(_event(sequence, first, body))
        return EventBatch(self.epoch, tuple(events))

    def acknowledged(self, ack: EventAck) -> int:
        """Delete what the server has and return how many events that were; an answer to another epoch counts nothing.

        Raises StorageError.
        """
        if ack.epoch != self.epoch:
            return 0
        with self._lock, self._transaction() as database:
            return database.execute("DELETE FROM events WHERE sequence <= ?", (ack.up_to,)).rowcount

    def put_aside(self, sequence: int, reason: str) -> None:
        """Leave a gap record in the place of an event that the server will never take. Raises StorageError."""
        with self._lock, self._transaction() as database:
            row = database.execute("SELECT first, gap FROM events WHERE sequence = ?", (sequence,)).fetchone()
            if row is None:
                return
            database.execute("DELETE FROM events WHERE sequence = ?", (sequence,))
            # A gap record that is refused itself is let go: the server sees the jump.
            if not row[1]:
                _insert_gap(database, self._now_us(), row[0], sequence, reason)

    def pending(self) -> int:
        """Return how many events wait. Raises StorageError."""
        with self._lock, self._transaction() as database:
            return int(database.execute("SELECT count(*) FROM events").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _open_or_replace(self) -> Path | None:
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StorageError(f"{self._path}: cannot be opened: {error}") from error
            aside = self._path.with_name(f"{self._path.name}.damaged-{self._now_us()}")
            for suffix in ("", "-wal", "-shm"):
                there = self._path.with_name(self._path.name + suffix)
                if there.exists():
                    there.replace(aside.with_name(aside.name + suffix))
            self._open()
            return aside
        return None

    def _open(self) -> None:
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA cache_size=-256")
            database.executescript(_SCHEMA)
            if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("the check found damage")
            database.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(16),))
            self.epoch = str(database.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])
        except BaseException:
            database.close()
            raise
        self._database = database

    def _keep_bound(self, database: sqlite3.Connection) -> None:
        count, size = database.execute("SELECT count(*), coalesce(sum(size), 0) FROM events").fetchone()
        if count <= self._max_events and size <= self._max_bytes:
            return
        rows = database.execute(
            "SELECT first, sequence, size, severity, gap FROM events ORDER BY sequence"
        ).fetchall()
        entries = [Entry(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]
        over_bytes = size - self._max_bytes + self._max_bytes // _SLACK
        over_events = count - self._max_events + self._max_events // _SLACK
        dropped = choose(entries[:-1], over_bytes=over_bytes, over_events=over_events)
        gaps = join_gaps([(e.first, e.last) for e in [*dropped, *(e for e in entries if e.gap)]])
        for first, last in gaps:
            database.execute("DELETE FROM events WHERE sequence BETWEEN ? AND ?", (first, last))
            _insert_gap(database, self._now_us(), first, last, "outbox-full")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error


def _insert(database: sqlite3.Connection, at_us: int, severity: Severity, body: EventBody) -> int:
    data = msgspec.json.encode(Event(0, at_us, severity, body))
    cursor = database.execute(
        "INSERT INTO events (first, severity, gap, size, body) VALUES (0, ?, 0, ?, ?)",
        (severity, len(data), data),
    )
    sequence = int(cursor.lastrowid or 0)
    database.execute("UPDATE events SET first = sequence WHERE sequence = ?", (sequence,))
    return sequence


def _insert_gap(database: sqlite3.Connection, at_us: int, first: int, last: int, reason: str) -> None:
    data = msgspec.json.encode(Event(last, at_us, "warning", GapRecord(first, last, reason)))
    database.execute("INSERT INTO events VALUES (?, ?, 'warning', 1, ?, ?)", (last, first, len(data), data))


def _event(sequence: int, first: int, body: bytes) -> Event:
    try:
        return msgspec.structs.replace(decode(body, Event), sequence=sequence)
    except UNREADABLE:
        return Event(sequence, 0, "warning", GapRecord(first, sequence, "damaged"))
