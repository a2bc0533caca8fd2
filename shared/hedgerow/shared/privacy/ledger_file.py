"""The ledger on disk: one SQLite file, entries appended and never changed.

Table ``entries`` is the chain. Table ``updates`` beside it holds the packed update of the exchanges released last, so
that a retry sends the same bytes again; it is no part of the chain. Readers need this module alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hedgerow.shared.errors import IntegrityError, StorageError
from hedgerow.shared.privacy.entries import GENESIS, Entry, check_entry
from hedgerow.shared.privacy.state import LedgerState

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY, previous BLOB NOT NULL, salt BLOB NOT NULL,
    at_us INTEGER NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS updates (
    job_id TEXT NOT NULL, round INTEGER NOT NULL, exchange INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (job_id, round, exchange)) STRICT;
CREATE TRIGGER IF NOT EXISTS entries_keep BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


class Chain:
    """A verified prefix of a ledger: its head, its length and its state."""

    def __init__(self) -> None:
        self.head = GENESIS
        self.length = 0
        self.state = LedgerState()

    def extend(self, entry: Entry) -> None:
        """Take the next entry. Raises IntegrityError if it does not belong there."""
        check_entry(entry, self.length + 1, self.head)
        self.state.apply(entry.body, entry.hash)
        self.head, self.length = entry.hash, entry.sequence


def read_entries(connection: sqlite3.Connection, after: int = 0) -> Iterator[Entry]:
    """Yield the entries numbered above ``after``, in order."""
    rows = connection.execute(
        "SELECT sequence, previous, salt, at_us, body, hash FROM entries WHERE sequence > ? ORDER BY sequence",
        (after,),
    )
    for sequence, previous, salt, at_us, body, found in rows:
        yield Entry(sequence, previous, salt, at_us, body, found)


def verify(path: Path) -> Chain:
    """Return the verified chain of the ledger at ``path``, reading only.

    Raises StorageError if it is missing or no ledger, IntegrityError naming the entry that was altered or that
    contradicts the ones before. Entries cut off at the end leave a sound chain: only a head kept elsewhere shows that.
    """
    if not path.is_file():
        raise StorageError(f"{path}: no privacy ledger there")
    chain = Chain()
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            for entry in read_entries(connection):
                chain.extend(entry)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{path}: not a readable privacy ledger: {error}") from error
    return chain


def check_ancestor(path: Path, head: str) -> None:
    """Raise IntegrityError unless the hexadecimal ``head`` is the hash of an entry in the ledger at ``path``.

    This is how a head that somebody kept shows that nothing before it was taken away.
    """
    verify(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        found = connection.execute("SELECT 1 FROM entries WHERE hash = ?", (bytes.fromhex(head),)).fetchone()
    finally:
        connection.close()
    if found is None:
        raise IntegrityError(f"{path}: the ledger does not hold the head {head[:12]}…: entries were removed")
