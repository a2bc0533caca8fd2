"""What a fleet of real processes cannot do is told before anything starts, with the field and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.simulation_scenarios import scenario

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.fleet import check
from hedgerow.simulations.fleet.check import check_fleet_scenario, free_bytes, job_of, most_devices
from hedgerow.simulations.fleet.run import run_fleet
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.run.play import Plan

PRIVATE: dict[str, Any] = {"job__privacy": {"mode": "example", "epsilon": 8.0, "delta": 1e-5}}


def test_memory_bounds_the_number_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "free_bytes", lambda: check.SERVER_BYTES + 3 * check.AGENT_BYTES + 1)

    check_fleet_scenario(scenario(population__devices=3), "s.toml")
    with pytest.raises(
        ConfigError, match=r"s\.toml: population\.devices: .*expected at most 3, got 4; set .*=3"
    ):
        check_fleet_scenario(scenario(population__devices=4), "s.toml")


def test_a_machine_without_memory_takes_nobody() -> None:
    assert most_devices(0) == 0
    assert most_devices(check.SERVER_BYTES + check.AGENT_BYTES) == 1


def test_free_memory_is_at_most_the_machines() -> None:
    assert 0 <= free_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize("name", ["scaffold", "fedbuff", "fedper"])
def test_strategies_of_simulations_alone_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.name: expected fedavg"):
        check_fleet_scenario(scenario(job__strategy={"name": name}, population__devices=2), "s.toml")


def test_a_private_job_keeps_the_samples_that_it_began_with() -> None:
    drifting: dict[str, Any] = {"population__drift": {"from_round": 3, "rotate_labels": True}}
    flipping: dict[str, Any] = {"faults__byzantine": {"kind": "label-flip", "from_round": 3}}

    check_fleet_scenario(scenario(population__devices=2, **drifting), "s.toml")
    check_fleet_scenario(scenario(population__devices=2, **flipping), "s.toml")
    with pytest.raises(ConfigError, match=r"drift\.from_round: .* expected 1 or none, got 3"):
        check_fleet_scenario(scenario(population__devices=2, **PRIVATE, **drifting), "s.toml")
    with pytest.raises(ConfigError, match=r"byzantine\.from_round: .* got 3"):
        check_fleet_scenario(scenario(population__devices=2, **PRIVATE, **flipping), "s.toml")
    with_attack: dict[str, Any] = {"faults__byzantine": {"kind": "sign-flip", "from_round": 3}}
    check_fleet_scenario(scenario(population__devices=2, **PRIVATE, **with_attack), "s.toml")


def test_the_jobs_own_population_filter_is_left_out_and_nothing_else() -> None:
    made = scenario(job__population={"groups": ["north"]}, job__rounds=7)
    job = job_of(made)

    assert job.population.groups == ()
    assert (job.rounds, job.recipe, job.privacy) == (7, made.job.recipe, made.job.privacy)


def test_going_on_with_a_run_is_refused(tmp_path: Path) -> None:
    named = NamedScenario(scenario(population__devices=2, engine="fleet"), "s.toml", tmp_path)

    with pytest.raises(ConfigError, match="keeps no checkpoints"):
        run_fleet(named, Plan(folder=tmp_path, resume=True), Interrupt())


def test_a_folder_that_holds_a_fleet_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    named = NamedScenario(scenario(population__devices=2, engine="fleet"), "s.toml", tmp_path)

    with pytest.raises(ConfigError, match="holds a fleet already"):
        run_fleet(named, Plan(folder=tmp_path), Interrupt())
    assert list(tmp_path.iterdir()) == [tmp_path / "fleet"]
