"""A job in a file of its own, or in a scenario: the same job; anything else is refused by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.server.jobs.written import parse_job
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.names import shipped
from hedgerow.simulations.scenario.load import read_scenario

JOB = """
name = "pump"
recipe = "vector"
rounds = 3
[privacy]
mode = "none"
[training]
learning_rate = 0.5
"""
SCENARIO = """
name = "a-world"
[population]
devices = 100
source = "digits"
[job]
name = "pump"
recipe = "vector"
rounds = 3
[job.privacy]
mode = "none"
[job.training]
learning_rate = 0.5
"""


def test_a_scenario_gives_the_job_that_its_table_is() -> None:
    assert parse_job(SCENARIO.encode(), "a.toml") == parse_job(JOB.encode(), "b.toml")


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_each_shipped_scenario_can_be_submitted_unchanged(path: Path) -> None:
    assert parse_job(path.read_bytes(), path.name) == read_scenario(path).job


def test_a_jobs_own_population_is_not_mistaken_for_a_scenarios() -> None:
    job = parse_job(JOB.encode() + b'[population]\ngroups = ["pumps"]\n', "a.toml")

    assert job.population.groups == ("pumps",)


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        (SCENARIO.replace("rounds = 3", "round = 3"), r"a\.toml: \[job\]: unknown key round"),
        (SCENARIO.replace("rounds = 3", "rounds = 0"), r"a\.toml: \[job\]: .*rounds"),
        (SCENARIO.replace('[job.privacy]\nmode = "none"', ""), r"a\.toml: \[job\]: .*privacy"),
        ("job = 3\n[population]\nsource = 3\n", r"a\.toml: unknown keys job, population\.source"),
        (JOB + '[job]\nname = "x"\n', r"a\.toml: unknown key.* job"),
        ("name = ", r"a\.toml: not TOML"),
        ("x" * (limits.MAX_TOML_BYTES + 1), r"a\.toml: larger than"),
    ],
)
def test_what_is_neither_is_refused_by_key(toml: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_job(toml.encode(), "a.toml")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a\.toml: not UTF-8"):
        parse_job(b"\xff\xfe", "a.toml")
