"""A job as an engineer writes it: a file of its own, or the ``[job]`` table of a simulation's scenario."""

from __future__ import annotations

from hedgerow.shared.job import Job
from hedgerow.shared.tomlfile import from_table, parse_table


def parse_job(toml: bytes, where: str) -> Job:
    """Return the job in TOML bytes; ``where`` names the file in messages.

    A scenario (it has the tables ``job`` and ``population``, and no recipe of its own) gives its job unchanged; what else is
    in it describes a simulated world, which a fleet has no use for. Raises ConfigError as ``parse_toml``.
    """
    table = parse_table(toml, where)
    if isinstance(table.get("job"), dict) and "population" in table and "recipe" not in table:
        return from_table(table["job"], Job, f"{where}: [job]")
    return from_table(table, Job, where)
