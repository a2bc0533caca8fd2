"""A job as an engineer writes it: a file of its own, or the ``[job]`` table of a simulation's scenario."""

from __future__ import annotations

import tomllib
from typing import Any

from hedgerow.shared import limits
from hedgerow.shared.job import Job
from hedgerow.shared.tomlfile import from_table, parse_toml


def parse_job(toml: bytes, where: str) -> Job:
    """Return the job in TOML bytes; ``where`` names the file in messages.

    A scenario (it has the tables ``job`` and ``population``, and no recipe of its own) gives its job unchanged; what else is
    in it describes a simulated world, which a fleet has no use for. Raises ConfigError as ``parse_toml``.
    """
    table = _table(toml)
    if isinstance(table.get("job"), dict) and "population" in table and "recipe" not in table:
        return from_table(table["job"], Job, f"{where}: [job]")
    return parse_toml(toml, Job, where)


def _table(toml: bytes) -> dict[str, Any]:
    """Return what can be read as TOML, empty for anything else: ``parse_toml`` then says what is wrong with it."""
    if len(toml) > limits.MAX_TOML_BYTES:
        return {}
    try:
        return tomllib.loads(toml.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
