"""Runs that stop and go on: the same model as one that never stopped, whatever the strategy carries."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import ConfigError, ContentError, IntegrityError, StorageError
from hedgerow.simulations.run import play as playing
from hedgerow.simulations.run.checkpoint import read_checkpoint
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.play import Plan, check_folder, play_setting
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.results import read_result, scenario_sha256

JOBS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fixed-cohort": {"cohort": {"rule": "fixed", "size": 2}},
    "fedadam": {"strategy": {"name": "fedadam"}},
    "fedbuff": {"strategy": {"name": "fedbuff", "options": {"buffer_size": 2, "concurrency": 3}}},
    "central": {
        "privacy": {"mode": "central-poisson", "noise_multiplier": 2.0, "delta": 1e-3},
        "cohort": {"rule": "poisson", "rate": 0.5},
    },
    "example": {"privacy": {"mode": "example", "epsilon": 4.0, "delta": 1e-3}},
}


def same(one: Result, other: Result) -> None:
    """Two results of the same run say the same of it, but for times."""
    assert one.model_sha256 == other.model_sha256
    timeless = [[msgspec.structs.replace(r, wall_s=0.0) for r in each.rounds] for each in (one, other)]
    assert timeless[0] == timeless[1]
    assert one.privacy == other.privacy
    assert one.device_records == other.device_records


@pytest.mark.parametrize("name", JOBS)
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "CHECKPOINT_INTERVAL_S", 0.0)
    scenario = tiny_scenario(4, job={"rounds": 4, **JOBS[name]}, faults={"dropout": 0.2})
    setting = tiny_setting(
        scenario, counts=(3, 3, 4, 4)
    )  # two plans in mode example: accounting takes its time
    whole = played(setting)
    interrupt = Interrupt()

    def stop_at_two(record: Any) -> None:
        interrupt.asked = record.round == 2

    plan = Plan(folder=tmp_path, progress=stop_at_two)
    half = play_setting(setting, plan, interrupt, InProcessEngine.make)
    assert (half.state, len(half.rounds)) == ("interrupted", 2)
    rest = played(setting, tmp_path, resume=True)
    assert rest.state == "finished"
    same(whole, msgspec.structs.replace(rest, folder=""))
    assert len((tmp_path / "rounds.jsonl").read_bytes().splitlines()) == 4


def test_rounds_played_after_the_last_checkpoint_are_played_again_and_charged_once(tmp_path: Path) -> None:
    setting = tiny_setting(tiny_scenario(4, job={"rounds": 4, **JOBS["central"]}))
    whole = played(setting)

    class PowerCutError(Exception):
        """Nothing catches it: as if the process were gone."""

    def cut(record: Any) -> None:
        if record.round == 3:
            raise PowerCutError

    # All of this takes less than the interval of checkpoints: only that of round 0 is there.
    with pytest.raises(PowerCutError):
        played(setting, tmp_path, progress=cut)
    scenario = setting.scenario
    assert read_checkpoint(tmp_path, scenario_sha256(scenario), "lean").round == 0
    assert len(list(Ledger(tmp_path / "ledger.jsonl"))) == 3
    rest = played(setting, tmp_path, resume=True)
    same(whole, rest)
    assert len(list(Ledger(tmp_path / "ledger.jsonl"))) == 4


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(tmp_path: Path) -> None:
    setting = tiny_setting()
    done = played(setting, tmp_path)
    again = played(setting, tmp_path, resume=True)
    same(done, again)


def test_a_folder_with_a_run_in_it_is_not_written_over(tmp_path: Path) -> None:
    played(tiny_setting(), tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        check_folder(Plan(folder=tmp_path))
    check_folder(Plan(folder=tmp_path, resume=True))
    check_folder(Plan(folder=tmp_path / "other"))


def test_resuming_needs_a_checkpoint_of_the_same_scenario_and_engine(tmp_path: Path) -> None:
    setting = tiny_setting()
    with pytest.raises(StorageError, match="no checkpoint to resume from"):
        played(setting, tmp_path, resume=True)
    with pytest.raises(ConfigError, match=r"--resume: expected a --folder"):
        played(setting, None, resume=True)
    played(setting, tmp_path)
    with pytest.raises(ConfigError, match="belongs to another scenario"):
        played(tiny_setting(tiny_scenario(4, seed=8)), tmp_path, resume=True)
    other = msgspec.structs.replace(setting.scenario, engine="flower")
    with pytest.raises(ConfigError, match="belongs to another scenario"):
        played(setting._replace(scenario=other), tmp_path, resume=True)


@pytest.mark.parametrize("how", ["cut", "altered", "empty"])
def test_a_damaged_checkpoint_is_refused_with_its_path(how: str, tmp_path: Path) -> None:
    played(tiny_setting(), tmp_path)
    path = tmp_path / "checkpoint"
    data = bytearray(path.read_bytes())
    at = data.index(b"model") + 10  # within the model's values
    data[at] ^= 1
    path.write_bytes(bytes({"cut": data[: len(data) // 2], "altered": data, "empty": b""}[how]))
    with pytest.raises(IntegrityError, match=r"checkpoint: damaged"):
        played(tiny_setting(), tmp_path, resume=True)


def test_a_full_disk_at_a_checkpoint_names_the_path_and_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "CHECKPOINT_INTERVAL_S", 0.0)
    setting = tiny_setting(tiny_scenario(4, job={"rounds": 30}))
    whole = played(setting)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(record: Any) -> None:
        if record.round == 2:
            size = (tmp_path / "checkpoint").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))

    try:
        with pytest.raises(
            StorageError,
            match=r"(checkpoint|rounds\.jsonl): cannot be written.*round 3 is not kept.*--resume",
        ):
            played(setting, tmp_path, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_checkpoint(tmp_path, scenario_sha256(setting.scenario), "lean").round == 2
    same(whole, played(setting, tmp_path, resume=True))


def test_what_was_reached_before_training_fell_apart_is_kept(tmp_path: Path) -> None:
    job = {"rounds": 30, "training": {"batch_size": 2, "learning_rate": 3.0, "local_epochs": 4}}
    engines = []

    def make(*arguments: Any) -> InProcessEngine:
        engines.append(InProcessEngine.make(*arguments))
        return engines[-1]

    with pytest.raises(ContentError, match=r"job\.training\.learning_rate = 3 "):
        play_setting(tiny_setting(tiny_scenario(4, job=job)), Plan(folder=tmp_path), Interrupt(), make)
    result = read_result(tmp_path)
    assert result.state == "interrupted"
    assert len(result.rounds) >= 1
    assert engines[0].closed == 1


def test_an_engine_that_was_told_to_stop_at_once_is_closed_and_results_are_kept(tmp_path: Path) -> None:
    engines = []

    def make(*arguments: Any) -> InProcessEngine:
        engines.append(InProcessEngine.make(*arguments))
        return engines[-1]

    def stop(record: Any) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_setting(tiny_setting(), Plan(folder=tmp_path, progress=stop), Interrupt(), make)
    assert engines[0].closed == 1
    result = read_result(tmp_path)
    assert (result.state, len(result.rounds)) == ("interrupted", 2)


def test_the_engine_is_given_the_choices_of_the_run_that_it_goes_on_with(tmp_path: Path) -> None:
    given = []

    def make(name: str, setting: Any, workers: Any, choices: Any, folder: Any) -> InProcessEngine:
        given.append(choices)
        return InProcessEngine(setting)

    setting = tiny_setting()
    play_setting(setting, Plan(folder=tmp_path, until=1), Interrupt(), make)
    play_setting(setting, Plan(folder=tmp_path, resume=True), Interrupt(), make)
    assert given == [None, {"kernel": "reference"}]


def test_results_can_be_read_back_and_say_what_they_depend_on(tmp_path: Path) -> None:
    result = played(tiny_setting(tests=2), tmp_path)
    assert read_result(tmp_path) == read_result(tmp_path / "results.json") == result
    assert {"python", "torch", "numpy", "hedgerow"} <= set(result.versions)
    assert [record.n_samples for record in result.device_records] == [3, 5, 2, 4]
    assert [record.group for record in result.device_records] == ["even", "odd"] * 2
    assert all(record.rounds == 3 and record.bytes_up == 48 for record in result.device_records)
    assert all(record.loss is not None and record.score is None for record in result.device_records)


def test_reading_what_is_no_result_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"results\.json: no result there"):
        read_result(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ConfigError, match="not the result of a simulation"):
        read_result(tmp_path)
