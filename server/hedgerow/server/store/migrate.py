"""Brings the database's tables to what this version of the server needs, by Alembic's numbered steps."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from hedgerow.server.store.database import Database

FOLDER = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> None:
    """Apply the steps that this database lacks, all of them or none: one transaction."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with database.engine.begin() as connection:
        if (
            connection.dialect.name == "sqlite"
        ):  # its driver begins a transaction for rows only, never for tables
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
