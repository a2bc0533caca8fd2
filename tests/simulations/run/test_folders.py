"""Where a run leaves its files, and which of many folders is gone on with."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.simulation_scenarios import DIGITS

from hedgerow.shared.errors import ConfigError, IntegrityError, StorageError
from hedgerow.simulations.run.cli import main
from hedgerow.simulations.run.folders import new_folder, newest_folder
from hedgerow.simulations.run.ledger import Ledger

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIME = "20260102-030405"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def left(name: str, file: str = "checkpoint", age_s: float = 0.0) -> Path:
    """Make a folder as a run leaves it, so long ago."""
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / file).write_text("")
    stamp = NOW.timestamp() - age_s
    os.utime(folder / file, (stamp, stamp))
    return folder


def test_runs_of_the_same_second_are_kept_apart() -> None:
    names = []
    for _ in range(4):
        folder = new_folder("mine", NOW)
        folder.mkdir(parents=True)
        names.append(folder.name)

    assert names == [f"mine-{TIME}", f"mine-{TIME}-2", f"mine-{TIME}-3", f"mine-{TIME}-4"]


def test_the_newest_is_the_one_written_last_whatever_its_name_says() -> None:
    left("mine-20990101-000000", age_s=50)
    newest = left(f"mine-{TIME}-2", age_s=1)
    left(f"mine-{TIME}", age_s=2)

    assert newest_folder("mine") == newest


@pytest.mark.parametrize(
    "other",
    [
        f"mine-two-{TIME}",
        f"mine-sweep-{TIME}",
        "mine-old",
        f"mine-{TIME}-x",
        f"mine-{TIME}-2-copy",
        f"mine{TIME}",
    ],
)
def test_runs_of_a_scenario_whose_name_begins_alike_are_not_ours(other: str) -> None:
    left(other)
    with pytest.raises(ConfigError, match="no run of 'mine' under runs; name its folder with --folder"):
        newest_folder("mine")

    ours = left(f"mine-{TIME}", age_s=99)
    assert newest_folder("mine") == ours


def test_a_folder_without_what_is_gone_on_from_is_passed_over() -> None:
    left(f"mine-{TIME}", "results.json")
    (Path("runs") / f"mine-{TIME}-2").write_text("a file")
    with pytest.raises(ConfigError, match="no run of 'mine'"):
        newest_folder("mine")

    assert newest_folder("mine", "results.json").name == f"mine-{TIME}"


def sweep(*more: str) -> int:
    Path("s.toml").write_text(
        DIGITS.replace('recipe = "digits-cnn"', 'recipe = "digits-cnn"\nrounds = 2')
        + '[sweep]\nfirst_rounds = 1\n[sweep.fields]\n"job.training.learning_rate" = [0.01, 0.1]\n'
    )
    return main(["s.toml", "--sweep", "--quiet", "--workers", "1", *more])


def test_a_sweep_that_is_resumed_is_the_newest_one_and_no_new_one() -> None:
    assert sweep() == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("small-sweep-")
    before = (folder / "ledger.jsonl").read_bytes()
    (folder / "sweep.json").unlink()  # as if it had been killed at the very end

    assert sweep("--resume") == 0
    assert list(Path("runs").iterdir()) == [folder]
    assert (folder / "sweep.json").exists()
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_a_sweep_that_there_is_not_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    left(f"small-{TIME}")
    left(f"small-{TIME}-2", "ledger.jsonl")
    try:
        assert sweep("--resume") == 1
        said = capsys.readouterr().err
    except ConfigError as error:
        said = str(error)

    assert "no run of 'small-sweep'" in said


def test_a_ledger_that_cannot_be_read_is_closed_again(recwarn: pytest.WarningsRecorder) -> None:
    path = Path("ledger.jsonl")
    path.write_bytes(b"{}\n")
    with pytest.raises(IntegrityError, match=r"line 1 is damaged"):
        Ledger(path)
    with pytest.raises(StorageError, match="cannot be used"):
        Ledger(path / "below")

    assert not [one for one in recwarn if one.category is ResourceWarning]
    assert path.read_bytes() == b"{}\n"
