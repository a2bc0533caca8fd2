"""The numbered steps lead to exactly the tables that the code declares: a step that was forgotten fails here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Integer, MetaData, Table, insert, text

from hedgerow.server.api.operators import Operators, Role
from hedgerow.server.app.schema import METADATA, PARTS
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.jobs.tables import JobRow
from hedgerow.server.ledger.accounts import PrivacyLedger
from hedgerow.server.store.database import Database, utc_now
from hedgerow.server.store.migrate import FOLDER, upgrade
from hedgerow.shared.job import Job, PrivacySpec


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'h.db'}")
    yield opened
    opened.close()


def differences(database: Database, metadata: MetaData = METADATA) -> list[object]:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, metadata))


def test_the_steps_make_the_tables_that_the_code_declares(database: Database) -> None:
    upgrade(database)

    assert differences(database) == []


def test_a_table_without_a_step_would_be_found(database: Database) -> None:
    upgrade(database)
    more = MetaData()
    for table in METADATA.tables.values():
        table.to_metadata(more)
    Table("forgotten", more, Column("n", Integer, primary_key=True))

    assert [change[0] for change in differences(database, more)] == ["add_table"]  # type: ignore[index]


def test_a_column_without_a_step_would_be_found(database: Database) -> None:
    upgrade(database)
    with database.engine.begin() as connection:
        connection.execute(text("alter table jobs drop column submitted_by"))

    assert [change[0] for change in differences(database)] == ["add_column"]  # type: ignore[index]


def test_a_second_upgrade_changes_nothing_and_keeps_the_rows(database: Database) -> None:
    upgrade(database)
    token = Operators(database).issue("ann", Role.VIEWER)
    upgrade(database)

    assert differences(database) == []
    assert Operators(database).authenticate(token).name == "ann"


def test_a_database_of_the_first_step_keeps_its_jobs_and_gets_the_ledger(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    job = Job(name="old", recipe="r", privacy=PrivacySpec("none"))
    with database.transaction() as session:
        session.execute(
            insert(JobRow).values(
                id="old-1", name="old", state="delivered", spec=msgspec.json.encode(job).decode(), recipe_hash="h",
                n_parameters=3, submitted_at=utc_now(),
            )
        )  # fmt: skip
    assert {"add_table"} == {change[0] for change in differences(database)}  # type: ignore[index]

    upgrade(database)

    assert differences(database) == []
    record = JobStore(database).get("old-1")
    assert record is not None
    assert (record.job, record.epsilon) == (job, None)
    assert PrivacyLedger(database).accounts() == []


def test_the_database_says_at_which_step_it_is(database: Database) -> None:
    upgrade(database)

    with database.engine.connect() as connection:
        at = MigrationContext.configure(connection).get_current_revision()
    assert at == ScriptDirectory(str(FOLDER)).get_current_head()


def test_steps_are_one_line_without_branches() -> None:
    steps = ScriptDirectory(str(FOLDER))

    assert len(steps.get_heads()) == 1
    assert len(list(steps.walk_revisions())) >= 1


def test_every_part_with_tables_is_gathered() -> None:
    declared = {path.parent.name for path in (FOLDER.parents[1]).glob("*/tables.py")}
    assert declared == {part.__name__.rsplit(".", 2)[1] for part in PARTS}
