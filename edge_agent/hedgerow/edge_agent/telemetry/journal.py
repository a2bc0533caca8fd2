"""What a restart needs to go on as if nothing had happened, written in the same transaction as the windows.

- The readings that the unfinished windows rest on: an acknowledged message is either in a stored window or here.
- The last messages by packet id, so that one redelivered because its acknowledgement was lost is not used twice.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque
from typing import Final

import msgspec

from hedgerow.edge_agent.telemetry.clock import HeldBack
from hedgerow.edge_agent.telemetry.reading import Row
from hedgerow.edge_agent.telemetry.stream import Fed, RowStream

MAX_READINGS: Final = 200_000
MAX_DELIVERIES: Final = 256
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS readings (seq INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, readings BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS held_back (seq INTEGER PRIMARY KEY, early INTEGER NOT NULL, time_us INTEGER NOT NULL, "
    "readings BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS deliveries (seq INTEGER PRIMARY KEY, packet INTEGER NOT NULL, digest BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS journal_of (profile TEXT NOT NULL)",
)
_Pairs = tuple[tuple[int, float], ...]


class Journal:
    """Follows one ``RowStream``; ``write`` runs inside the store's transaction, ``written`` after its commit."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._seq = 0
        self._kept: deque[tuple[int, int, bytes]] = deque()
        self._fresh: list[tuple[int, int, bytes]] = []
        self._delivery_seq = 0
        self._deliveries: dict[int, bytes] = {}
        self._fresh_deliveries: list[tuple[int, int, bytes]] = []
        self._held_back = self._held_back_written = HeldBack()

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables, and empty them if they belong to another profile."""
        for statement in _SCHEMA:
            connection.execute(statement)
        owner = connection.execute("SELECT profile FROM journal_of").fetchone()
        if owner is None or owner[0] != self._identity:
            for table in ("readings", "held_back", "deliveries", "journal_of"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608
            connection.execute("INSERT INTO journal_of VALUES (?)", (self._identity,))

    def restore(self, connection: sqlite3.Connection, stream: RowStream) -> int:
        """Bring ``stream`` to where the last commit left it; return how many rows that took."""
        rows = connection.execute("SELECT seq, time_us, readings FROM readings ORDER BY seq").fetchall()
        self._held_back = self._held_back_written = _read_held_back(connection)
        stream.restore([Row(time_us, _unpack(blob)) for _, time_us, blob in rows], self._held_back)
        self._kept.extend(rows)
        self._seq = rows[-1][0] if rows else 0
        for seq, packet, digest in connection.execute(
            "SELECT seq, packet, digest FROM deliveries ORDER BY seq"
        ):
            self._delivery_seq = seq
            self._deliveries.pop(packet, None)  # in the order of the latest use, as ``delivered`` keeps it
            self._deliveries[packet] = digest
        return len(rows)

    def redelivered(self, packet: int, topic: str, payload: bytes) -> bool:
        """Return whether a message that the broker marks as a duplicate was used before."""
        return self._deliveries.get(packet) == _digest(topic, payload)

    def delivered(self, packet: int, topic: str, payload: bytes) -> None:
        """Remember a message by its packet id."""
        digest = _digest(topic, payload)
        self._delivery_seq += 1
        self._deliveries.pop(packet, None)
        self._deliveries[packet] = digest
        while len(self._deliveries) > MAX_DELIVERIES:
            del self._deliveries[next(iter(self._deliveries))]
        self._fresh_deliveries.append((self._delivery_seq, packet, digest))
        del self._fresh_deliveries[:-MAX_DELIVERIES]

    def follow(self, fed: Fed, stream: RowStream) -> None:
        """Take what the stream used, and drop what no unfinished window rests on any more."""
        if fed.anew:
            self._kept.clear()
            self._fresh.clear()
        for row in fed.used:
            self._seq += 1
            entry = (self._seq, row.time_us, msgspec.msgpack.encode(row.values))
            self._kept.append(entry)
            self._fresh.append(entry)
        oldest_us = (stream.clock_us or 0) - stream.memory_us
        while self._kept and (self._kept[0][1] < oldest_us or len(self._kept) > MAX_READINGS):
            self._kept.popleft()
        # While the disk is full nothing is written: what waits to be must stay bounded too.
        del self._fresh[: max(0, len(self._fresh) - len(self._kept))]
        self._held_back = stream.held_back

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what is new and delete what is past."""
        first = self._kept[0][0] if self._kept else self._seq + 1
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", self._fresh)
        connection.execute("DELETE FROM readings WHERE seq < ?", (first,))
        if self._held_back != self._held_back_written:
            _write_held_back(connection, self._held_back)
        if self._fresh_deliveries:
            connection.executemany("INSERT INTO deliveries VALUES (?, ?, ?)", self._fresh_deliveries)
            connection.execute(
                "DELETE FROM deliveries WHERE seq <= ?", (self._delivery_seq - MAX_DELIVERIES,)
            )

    def written(self) -> None:
        """Forget what was new, because the transaction has committed."""
        self._fresh.clear()
        self._fresh_deliveries.clear()
        self._held_back_written = self._held_back

    def start_anew(self) -> None:
        """Note that the tables were emptied: all that an unfinished window rests on has to be written again."""
        self._fresh = list(self._kept)
        self._held_back_written = HeldBack()


def _read_held_back(connection: sqlite3.Connection) -> HeldBack:
    rows = connection.execute("SELECT early, time_us, readings FROM held_back ORDER BY seq").fetchall()
    early = tuple(Row(time_us, _unpack(blob)) for is_early, time_us, blob in rows if is_early)
    return HeldBack(
        early, tuple(Row(time_us, _unpack(blob)) for is_early, time_us, blob in rows if not is_early)
    )


def _write_held_back(connection: sqlite3.Connection, held_back: HeldBack) -> None:
    connection.execute("DELETE FROM held_back")
    connection.executemany(
        "INSERT INTO held_back (early, time_us, readings) VALUES (?, ?, ?)",
        [
            (is_early, row.time_us, msgspec.msgpack.encode(row.values))
            for is_early, rows in ((1, held_back.early), (0, held_back.streak))
            for row in rows
        ],
    )


def _digest(topic: str, payload: bytes) -> bytes:
    return hashlib.blake2b(topic.encode() + b"\0" + payload, digest_size=8).digest()


def _unpack(blob: bytes) -> _Pairs:
    return msgspec.msgpack.decode(blob, type=_Pairs)
