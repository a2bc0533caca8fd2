"""Scenario files: read within bounds, whole or not at all; those that come along all load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.simulation_scenarios import DIGITS, population

from hedgerow.server.jobs.validate import check_job
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.names import shipped
from hedgerow.simulations.scenario.load import parse_scenario, read_scenario
from hedgerow.simulations.scenario.strategies import SIMULATED_ONLY

SHIPPED = {path.stem: path for path in shipped()}


def test_a_file_and_its_bytes_give_the_same_scenario(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(DIGITS)

    assert read_scenario(file) == parse_scenario(DIGITS.encode(), "a.toml")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"name = ", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"# " + b"x" * limits.MAX_TOML_BYTES, "larger than"),
        (b"", "missing"),
        (DIGITS.replace('[job.privacy]\nmode = "none"', "").encode(), "privacy"),
    ],
)
def test_what_is_no_scenario_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(data)

    with pytest.raises(ConfigError, match=rf"a\.toml: .*{why}"):
        read_scenario(file)
    with pytest.raises(ConfigError, match=rf"^here: .*{why}"):
        parse_scenario(data, "here")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read"):
        read_scenario(tmp_path / "gone.toml")


def test_what_the_check_finds_is_named_by_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(DIGITS + '[evaluation]\ncohorts = "group"\n')

    with pytest.raises(ConfigError, match=r"a\.toml: evaluation\.cohorts"):
        read_scenario(file)


def test_six_scenarios_come_along() -> None:
    assert sorted(SHIPPED) == [
        "anomaly-fleet",
        "async-stragglers",
        "digits-non-iid",
        "drift",
        "poisoned-devices",
        "thousand-devices",
    ]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_each_loads_under_its_own_name_and_says_what_it_is(name: str) -> None:
    made = read_scenario(SHIPPED[name])

    assert made.name == name
    assert made.description
    assert SHIPPED[name].read_text().startswith("# ")


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_job_of_each_is_one_that_a_fleet_takes(name: str) -> None:
    job = read_scenario(SHIPPED[name]).job

    if job.strategy.name not in SIMULATED_ONLY:
        check_job(job, name)
    else:
        with pytest.raises(ConfigError, match=r"strategy\.name"):
            check_job(job, name)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_population_of_each_can_be_built(name: str) -> None:
    made = read_scenario(SHIPPED[name])
    found = population(made, SHIPPED[name].parent)

    assert found.devices == made.population.devices
    assert all(np.isfinite(phase.data.x).all() for phase in found.phases)
    assert np.diff(found.at(1).offsets).min() >= 1
    assert (found.device_test is not None) == (made.population.test_share > 0)
