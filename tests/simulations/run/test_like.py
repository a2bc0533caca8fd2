"""``--like``: a fresh run takes the choices of an earlier one, and so comes to the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.simulation_results import result_of

from hedgerow.shared.cli import main as hedgerow
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.like import choices_like
from hedgerow.simulations.run.results import read_result, write_result

SMALL = """
name = "small"
[job]
name = "small-job"
recipe = "mlp"
rounds = 2
privacy = {mode = "none"}
parameters = {classes = 3, inputs = 6, hidden = [8]}
training = {batch_size = 8, learning_rate = 0.1}
[population]
devices = 6
source = "synthetic-vectors"
options = {samples = 240}
[sweep]
first_rounds = 1
keep_one_of = 2
fields = {"job.training.learning_rate" = [1e-6, 0.1]}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def simulate(*arguments: object) -> int:
    return hedgerow(["simulate", *map(str, arguments), "--quiet"])


def recorded(folder: Path, **changes: Any) -> Path:
    """Leave a result in ``folder`` as a run would."""
    folder.mkdir()
    result = result_of(**changes)
    write_result(result, [0.0], folder)
    return folder


@pytest.mark.parametrize("kernel", ["explicit:1", "stacked:3"])
def test_a_run_like_another_takes_its_kernel_whatever_timing_would_say(
    kernel: str, scenario: Path, tmp_path: Path
) -> None:
    like = recorded(tmp_path / "first", engine="lean", choices={"kernel": kernel, "workers": "9"})
    for name, workers in (("a", 1), ("b", 2)):
        assert simulate(scenario, "--folder", tmp_path / name, "--like", like, "--workers", workers) == 0
    one, two = read_result(tmp_path / "a"), read_result(tmp_path / "b")
    assert one.choices["kernel"] == two.choices["kernel"] == kernel
    assert (one.choices["workers"], two.choices["workers"]) == ("1", "2")
    assert one.model_sha256 == two.model_sha256


def test_a_run_like_another_comes_to_its_model(scenario: Path, tmp_path: Path) -> None:
    assert simulate(scenario, "--folder", tmp_path / "first") == 0
    assert simulate(scenario, "--folder", tmp_path / "again", "--like", tmp_path / "first") == 0
    first, again = read_result(tmp_path / "first"), read_result(tmp_path / "again")
    assert again.model_sha256 == first.model_sha256
    assert {k: v for k, v in again.choices.items() if k != "workers"} == {
        k: v for k, v in first.choices.items() if k != "workers"
    }


def test_every_trial_of_a_sweep_takes_the_choices(scenario: Path, tmp_path: Path) -> None:
    like = recorded(tmp_path / "first", engine="lean", choices={"kernel": "stacked:5"})
    assert simulate(scenario, "--sweep", "--folder", tmp_path / "out", "--like", like) == 0
    trials = sorted((tmp_path / "out" / "trials").iterdir())
    assert [read_result(trial).choices["kernel"] for trial in trials] == ["stacked:5"] * 2


def test_a_run_that_goes_on_is_not_told_to_be_like_another(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = recorded(tmp_path / "first", engine="lean", choices={"kernel": "explicit:1"})
    assert simulate(scenario, "--folder", tmp_path / "out", "--like", like, "--resume") == 1
    assert "leave --like or --resume out" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "[]", '{"name": "x"}'])
def test_what_is_no_result_is_named_and_nothing_is_begun(
    content: str | None, scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first").mkdir()
    if content is not None:
        (tmp_path / "first" / "results.json").write_text(content)
    assert simulate(scenario, "--folder", tmp_path / "out", "--like", tmp_path / "first") == 1
    assert str(tmp_path / "first" / "results.json") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_choices_of_another_engine_are_refused_with_both_names(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", engine="flower", choices={"kernel": "reference:1"})
    with pytest.raises(ConfigError, match=r"--like .*run: that run's engine is 'flower', this one's 'lean'"):
        choices_like(folder, "lean")
    assert choices_like(folder, "flower") == {"kernel": "reference:1"}


def test_a_run_without_choices_is_refused(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", engine="fleet", choices={})
    with pytest.raises(ConfigError, match="engine 'fleet' recorded no choices"):
        choices_like(folder, "fleet")


@pytest.mark.parametrize("choices", [{"device": "cpu"}, {"kernel": "fast:1"}, {"kernel": "stacked:0"}])
def test_a_kernel_that_there_is_not_is_refused_with_the_path(choices: dict[str, str], tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", engine="lean", choices=choices)
    with pytest.raises(ConfigError, match=r"--like .*run: choices\.kernel: .*kernel"):
        choices_like(folder, "lean")


def test_the_file_may_be_named_as_well_as_its_folder(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", engine="lean", choices={"kernel": "explicit:1", "workers": "2"})
    assert choices_like(folder / "results.json", "lean") == choices_like(folder, "lean")
