"""Transactions hold or leave nothing, also across threads; SQLite is set up to survive a kill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from hedgerow.server.store.database import Database, utc_now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'h.db'}")
    with opened.transaction() as session:
        session.execute(text("create table t (n integer primary key)"))
    yield opened
    opened.close()


def count(database: Database) -> int:
    with database.transaction() as session:
        return int(session.execute(text("select count(*) from t")).scalar_one())


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.transaction() as session:
        session.execute(text("insert into t values (1)"))
        raise RuntimeError

    assert count(database) == 0


def test_threads_do_not_lose_each_others_rows(database: Database) -> None:
    def add(first: int) -> None:
        for n in range(first, first + 20):
            with database.transaction() as session:
                session.execute(text("insert into t values (:n)"), {"n": n})

    threads = [threading.Thread(target=add, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert count(database) == 80


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
)
def test_sqlite_is_durable_and_checks_keys(database: Database, pragma: str, value: object) -> None:
    with database.transaction() as session:
        assert session.execute(text(f"pragma {pragma}")).scalar_one() == value


def test_times_are_utc_without_zone() -> None:
    now = utc_now()

    assert now.tzinfo is None
    assert abs((datetime.now(UTC).replace(tzinfo=None) - now).total_seconds()) < 60
