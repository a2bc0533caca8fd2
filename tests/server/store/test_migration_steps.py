"""From each step to the newest and back: what was written stays readable, and a step undone leaves no trace."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from hedgerow.server.app.schema import METADATA
from hedgerow.server.store.database import Database, utc_now
from hedgerow.server.store.migrate import FOLDER, upgrade

STEPS = [step.revision for step in ScriptDirectory(str(FOLDER)).walk_revisions()][::-1]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'h.db'}")
    yield opened
    opened.close()


def move(database: Database, to: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, to)


def at(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def shape(database: Database) -> dict[str, Any]:
    """Return tables with their columns, keys and indexes, as the database itself tells."""
    look = inspect(database.engine)
    return {
        table: (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(table)),
            look.get_pk_constraint(table)["constrained_columns"],
            sorted(str(index["column_names"]) + str(index["unique"]) for index in look.get_indexes(table)),
        )
        for table in look.get_table_names()
        if table != "alembic_version"
    }


def fill(database: Database, tables: set[str]) -> None:
    """Write one row into every table, each column with a value of its type."""
    known = MetaData()
    known.reflect(database.engine)
    with database.engine.begin() as connection:
        for table in known.sorted_tables:
            if table.name in tables:
                connection.execute(table.insert().values({c.name: value_of(c) for c in table.columns}))


def value_of(column: Any) -> Any:
    kind = column.type.python_type
    if kind.__name__ == "datetime":
        return utc_now()
    plain: dict[str, Any] = {"int": 1, "str": "x", "float": 0.5, "bool": True, "bytes": b"x", "dict": {}}
    return plain.get(kind.__name__, "x")


def count(database: Database, table: str) -> int:
    with database.engine.connect() as connection:
        return int(connection.execute(text(f"select count(*) from {table}")).scalar_one())


@pytest.mark.parametrize("step", STEPS)
def test_from_each_step_the_way_up_ends_in_the_same_tables_and_keeps_every_row(
    database: Database, tmp_path: Path, step: str
) -> None:
    move(database, step)
    before = set(shape(database))
    fill(database, before)

    upgrade(database)

    fresh = Database(f"sqlite:///{tmp_path / 'fresh.db'}")
    upgrade(fresh)
    assert shape(database) == shape(fresh)
    assert at(database) == at(fresh) == STEPS[-1]
    assert {table: count(database, table) for table in before} == dict.fromkeys(before, 1)
    fresh.close()


@pytest.mark.parametrize(("lower", "upper"), list(itertools.pairwise(STEPS)))
def test_a_step_undone_leaves_the_tables_of_the_one_before_and_their_rows(
    database: Database, lower: str, upper: str
) -> None:
    move(database, lower)
    before = shape(database)
    fill(database, set(before))
    move(database, upper)
    assert shape(database) != before

    move(database, lower, down=True)

    assert shape(database) == before
    assert {table: count(database, table) for table in before} == dict.fromkeys(before, 1)
    move(database, upper)
    assert at(database) == upper


def test_all_the_way_down_leaves_nothing(database: Database) -> None:
    upgrade(database)
    move(database, "base", down=True)

    assert shape(database) == {}
    assert at(database) is None


def test_tables_made_by_the_steps_take_what_the_code_declares(database: Database) -> None:
    """Every declared column is there, and each table takes a row, which the declared types can read again."""
    upgrade(database)
    fill(database, set(METADATA.tables))

    with database.engine.connect() as connection:
        for table in METADATA.sorted_tables:
            (row,) = connection.execute(table.select()).mappings()
            assert set(row) == {column.name for column in table.columns}


@pytest.mark.parametrize("table", sorted(METADATA.tables))
def test_each_table_refuses_a_second_row_of_the_same_key_and_a_missing_value(
    database: Database, table: str
) -> None:
    upgrade(database)
    fill(database, set(METADATA.tables))
    declared = METADATA.tables[table]
    whole = {column.name: value_of(column) for column in declared.columns}
    for column in declared.columns:
        if not column.nullable and not column.primary_key:
            lacking = {**whole, column.name: None}
            with pytest.raises(SQLAlchemyError), database.engine.begin() as connection:
                connection.execute(text(insert_of(table, lacking)), lacking)
    with pytest.raises(SQLAlchemyError), database.engine.begin() as connection:
        connection.execute(declared.insert().values(whole))
    assert count(database, table) == 1


def insert_of(table: str, values: dict[str, Any]) -> str:
    return f"insert into {table} ({', '.join(values)}) values ({', '.join(f':{name}' for name in values)})"


def test_a_database_of_a_newer_release_is_refused_and_left_alone(database: Database) -> None:
    upgrade(database)
    with database.engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    before = shape(database)

    with pytest.raises(Exception, match="9999"):
        upgrade(database)

    assert shape(database) == before
    assert at(database) == "9999"


def test_a_step_that_fails_half_way_is_undone_whole(database: Database) -> None:
    """A table of step two is in the way: nothing of that step may stay, and the database says it is at step one."""
    move(database, STEPS[0])
    with database.engine.begin() as connection:
        connection.execute(text("create table privacy_charges (n integer)"))
    before = shape(database)

    with pytest.raises(SQLAlchemyError, match="already exists"):
        upgrade(database)

    assert at(database) == STEPS[0]
    assert shape(database) == before
