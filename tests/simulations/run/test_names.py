"""Scenarios by file, name and value; fields set from outside; jobs written as TOML again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job, TrainingSpec
from hedgerow.shared.tomlfile import parse_toml, read_toml
from hedgerow.simulations.run.folders import new_folder, newest_folder
from hedgerow.simulations.run.names import find_scenario, parse_override, shipped, with_overrides
from hedgerow.simulations.run.toml_text import changed, toml_of, toml_value
from hedgerow.simulations.scenario.spec import Scenario

DIGITS = """
name = "mine"
[job]
name = "mine"
recipe = "digits-cnn"
rounds = 4
privacy = {mode = "none"}
[population]
devices = 10
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(DIGITS)
    return path


def test_a_file_is_found_with_the_folder_of_its_relative_paths(file: Path) -> None:
    found = find_scenario(file)
    assert (found.scenario.name, found.base) == ("mine", file.parent)
    assert find_scenario(str(file)) == found


def test_scenarios_that_come_along_are_found_by_name() -> None:
    for path in shipped():
        assert find_scenario(path.stem).where == str(path)
    assert len(shipped()) >= 6


def test_a_value_is_itself(file: Path) -> None:
    scenario = find_scenario(file).scenario
    assert find_scenario(scenario).scenario == scenario


def test_an_unknown_name_lists_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"nothing: no such file.*digits-non-iid"):
        find_scenario("nothing")
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read"):
        find_scenario("gone.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job.training.learning_rate=0.1", ("job.training.learning_rate", 0.1)),
        ("job.rounds = 7", ("job.rounds", 7)),
        ("job.strategy.name=fedadam", ("job.strategy.name", "fedadam")),
        ('job.strategy.name="fedadam"', ("job.strategy.name", "fedadam")),
        ("evaluation.central=false", ("evaluation.central", False)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a=b=c", ("a", "b=c")),
        ("faults.byzantine.kind=nan", ("faults.byzantine.kind", "nan")),
    ],
)
def test_overrides_are_read_as_toml_or_else_as_text(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["job.rounds", "=3", ""])
def test_an_override_without_path_or_value_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="expected PATH=VALUE"):
        parse_override(text)


def test_overrides_reach_into_tables_lists_and_what_was_not_given(file: Path) -> None:
    found = find_scenario(
        file,
        [
            "job.training.learning_rate=0.5",
            ("device_class.0.latency_s", 0.5),
            "faults.byzantine.kind=nan",
            "job.parameters.filters=4",
            "seed=9",
        ],
    ).scenario
    assert found.job.training.learning_rate == 0.5
    assert found.device_class[0].latency_s == 0.5
    assert found.faults.byzantine is not None and found.faults.byzantine.kind == "nan"
    assert found.job.parameters["filters"] == 4
    assert found.seed == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("job.training.rate=1", r"unknown key job\.training\.rate"),
        ("job.rounds=many", r"Expected `int`, got `str` - at `\$\.job\.rounds`"),
        ("job.rounds.more=1", r"job\.rounds holds no keys"),
        ("device_class.3.jitter=1", r"device_class\.3 holds no keys"),
        ("device_class.3=1", r"expected a number below 1"),
        ("job.recipe=nothing", r"job\.recipe: no recipe 'nothing'"),
        ("job.cohort.size=11", r"job\.cohort\.size"),
        ("job.privacy.mode=local", r"job\.privacy\.mode"),
    ],
)
def test_an_override_that_cannot_be_names_the_field(change: str, message: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        find_scenario(file, [change])


def test_rounds_may_be_fewer_than_what_the_scenario_lets_happen(file: Path) -> None:
    drifting = ["population.drift.from_round=3", "population.drift.shift=1.0"]
    assert find_scenario(file, drifting, rounds=2).scenario.job.rounds == 2
    with pytest.raises(ConfigError, match=r"drift\.from_round: reaches round 3"):
        find_scenario(file, [*drifting, "job.rounds=2"])


def test_another_engine_is_checked_against_the_job(file: Path) -> None:
    assert find_scenario(file, engine="flower").scenario.engine == "flower"
    with pytest.raises(ConfigError, match=r"engine"):
        find_scenario(file, engine="magic")
    with pytest.raises(ConfigError, match=r"'scaffold' is simulated only"):
        find_scenario(file, ["job.strategy.name=scaffold"], engine="fleet")


def test_a_job_survives_being_written_as_toml(file: Path) -> None:
    for path in [file, *shipped()]:
        job = read_toml(path, Scenario).job
        assert parse_toml(toml_of(changed(job)).encode(), Job, "again") == job


def test_whole_scenarios_survive_too() -> None:
    for path in shipped():
        scenario = read_toml(path, Scenario)
        assert parse_toml(toml_of(changed(scenario)).encode(), Scenario, "again") == scenario


def test_only_what_differs_from_the_defaults_is_written() -> None:
    assert changed(TrainingSpec()) == {}
    assert toml_of(changed(TrainingSpec(learning_rate=0.5))) == "learning_rate = 0.5\n"


@pytest.mark.parametrize("value", [1, -2.5, 1e-9, True, 'a"b\\c\nd é', [1, 2], ["a"], [], {"x y": 1}, 1e300])
def test_values_survive_as_toml(value: Any) -> None:
    import tomllib

    assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        toml_value(object())


def test_overriding_changes_nothing_else(file: Path) -> None:
    scenario = find_scenario(file).scenario
    other = with_overrides(scenario, [("seed", 3)], "here")
    assert msgspec.structs.replace(other, seed=0) == scenario


def test_folders_are_new_each_time_and_the_newest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = new_folder("mine", now)
    assert str(first) == "runs/mine-20260102-030405"
    first.mkdir(parents=True)
    second = new_folder("mine", now)
    assert second != first
    with pytest.raises(ConfigError, match="no run of 'mine'"):
        newest_folder("mine")
    second.mkdir()
    (second / "checkpoint").write_text("")
    assert newest_folder("mine") == second
