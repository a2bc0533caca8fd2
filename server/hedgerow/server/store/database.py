"""The server's database: one SQLAlchemy engine, sessions in transactions, SQLite tuned for one server process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker


class Base(DeclarativeBase):
    """Parent of every table of the server; a part declares its tables in its own ``tables.py``."""


class Database:
    """Opens ``url`` and hands out transactions. Safe to use from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _tune_sqlite)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session; commit at the end, roll back if the block raises."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def utc_now() -> datetime:
    """Return the time in UTC, without zone, as the tables keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
