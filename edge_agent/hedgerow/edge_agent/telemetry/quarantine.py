"""Bad payloads kept for a person to look at: bounded in number and bytes, counted by reason without bound."""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from typing import Final

import msgspec

from hedgerow.edge_agent.telemetry.reading import COUNTED_ONLY, Reason, Refusal

MAX_ENTRIES: Final = 200
MAX_KEPT_BYTES: Final = 256
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS quarantine (id INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, "
    "topic TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, payload BLOB NOT NULL, size INTEGER NOT NULL)"
)


class Quarantined(msgspec.Struct, frozen=True):
    """One message that was not used, or not wholly: its first bytes, its size, and the first reason."""

    at_us: int
    topic: str
    reason: Reason
    detail: str
    payload: bytes
    size: int


class Quarantine:
    """Collects refusals; ``write`` puts what is new into SQLite within somebody's transaction."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._fresh: deque[Quarantined] = deque(maxlen=MAX_ENTRIES)

    def take(
        self, topic: str, payload: bytes, refusals: tuple[Refusal, ...] | list[Refusal], at_us: int
    ) -> bool:
        """Count refusals; return whether the payload itself was at fault, and is kept."""
        self.counts.update(refusal.reason for refusal in refusals)
        faults = [refusal for refusal in refusals if refusal.reason not in COUNTED_ONLY]
        if not faults:
            return False
        first = faults[0]
        kept = bytes(payload[:MAX_KEPT_BYTES])
        self._fresh.append(
            Quarantined(at_us, topic[:256], first.reason, first.detail[:200], kept, len(payload))
        )
        return True

    def write(self, connection: sqlite3.Connection) -> None:
        """Insert what is new and drop the oldest beyond the bound."""
        if not self._fresh:
            return
        connection.executemany(
            "INSERT INTO quarantine (at_us, topic, reason, detail, payload, size) VALUES (?, ?, ?, ?, ?, ?)",
            [(q.at_us, q.topic, q.reason, q.detail, q.payload, q.size) for q in self._fresh],
        )
        connection.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?", (MAX_ENTRIES,)
        )

    def written(self) -> None:
        """Forget what was new, because the transaction has committed."""
        self._fresh.clear()

    @staticmethod
    def prepare(connection: sqlite3.Connection) -> None:
        """Create the table."""
        connection.execute(_SCHEMA)

    @staticmethod
    def recent(connection: sqlite3.Connection, limit: int = 20) -> list[Quarantined]:
        """Return the newest entries, newest first."""
        rows = connection.execute(
            "SELECT at_us, topic, reason, detail, payload, size FROM quarantine ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Quarantined(*row) for row in rows]
