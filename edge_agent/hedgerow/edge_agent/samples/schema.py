"""The sample store's SQLite file: its schema, its pragmas, whether it is sound, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from hedgerow.shared.errors import StorageError

APPLICATION_ID: Final = 0x48445257
SCHEMA_VERSION: Final = 1
QUICK_CHECK_BYTES: Final = 32 * 1024 * 1024
_BUSY_S: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE specs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dtype TEXT NOT NULL, shape TEXT NOT NULL, kind TEXT NOT NULL
);
CREATE TABLE samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    spec INTEGER NOT NULL, start_us INTEGER NOT NULL, end_us INTEGER NOT NULL,
    feature_set TEXT NOT NULL, valid REAL NOT NULL, label INTEGER,
    digest BLOB NOT NULL, data BLOB NOT NULL
);
CREATE INDEX samples_of_spec ON samples (spec, id);
CREATE UNIQUE INDEX samples_once ON samples (spec, start_us, end_us, digest);
CREATE TABLE state (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class DamagedError(StorageError):
    """The file is no database of ours any more; the message names the path."""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open or create the store at ``path`` for writing. Raises DamagedError, or StorageError for other trouble."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if str(path) != ":memory:" and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: the sample store cannot be opened: {error}") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        # The statements above are sound: SQLite calls a header that makes no sense a plain error.
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR:
            raise DamagedError(f"{path}: the sample store is damaged: {error}") from error
        raise as_storage_error(error, path) from error
    except StorageError:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open an existing store for reading only. Raises StorageError if there is none, or it is not sound."""
    if not path.exists():
        raise StorageError(
            f"{path}: there is no sample store yet; the agent makes it when telemetry comes in"
        )
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        if not _tables(connection):
            connection.close()
            raise StorageError(f"{path}: the sample store is just being made")
        _check_version(connection, path)
    except sqlite3.Error as error:
        raise as_storage_error(error, path) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA journal_size_limit=1048576")
    connection.execute("PRAGMA wal_autocheckpoint=256")
    connection.execute("PRAGMA cache_size=-512")
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0 and not _tables(connection):
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("COMMIT")
        return
    _check_version(connection, path)
    _check_sound(connection, path)


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise DamagedError(f"{path}: is a database, but not a sample store")
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path}: written by a newer version (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade the agent or move the file away"
        )


def _check_sound(connection: sqlite3.Connection, path: Path) -> None:
    """Read the whole file if it is small or was not closed properly; else trust what each read finds."""
    clean = connection.execute("SELECT value FROM state WHERE key='clean'").fetchone()
    if clean is None or not clean[0] or path.stat().st_size <= QUICK_CHECK_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise DamagedError(f"{path}: the sample store is damaged: {verdict}")


def mark_clean(connection: sqlite3.Connection, clean: bool) -> None:
    """Note whether the file was closed properly, so that the next start knows how hard to look."""
    connection.execute(
        "INSERT INTO state VALUES ('clean', ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
        (int(clean),),
    )


def as_storage_error(error: sqlite3.Error, path: Path) -> StorageError:
    """Return what an SQLite error means to callers: damaged, full, or other trouble."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError(f"{path}: the sample store is damaged: {error}")
    if code == sqlite3.SQLITE_FULL:
        return StorageError(
            f"{path}: the disk is full; nothing committed is lost, new samples are not stored"
        )
    return StorageError(f"{path}: the sample store failed: {error}")


def move_aside(path: Path, stamp: str) -> Path:
    """Rename a damaged store, and drop those moved before, so that damage cannot fill the disk; return the new path."""
    for old in path.parent.glob(f"{path.name}.damaged-*"):
        old.unlink(missing_ok=True)
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    path.rename(target)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return target
