"""The selection end to end on a made-up rig: it finds options, and labels cannot reach it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.configs import CONFIGS
from tests.support.skab_rig import write_recording

from hedgerow.shared.job import Job
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.bench import skab_files
from hedgerow.simulations.bench.cli import main
from hedgerow.simulations.bench.selection import search


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of two networks instead of twelve: the search is the same."""
    monkeypatch.setattr(search, "ROWS", (16,))
    monkeypatch.setattr(search, "NETWORKS", ((16, 4),))
    monkeypatch.setattr(search, "MEMORIES", (5.0, 10.0))
    monkeypatch.setattr(search, "DRIFT_RATIOS", (None, 0.5))
    monkeypatch.setattr(search, "SCALINGS", ("public",))
    monkeypatch.setattr(search, "FACTORS", (1.0, 1.45))
    monkeypatch.setattr(search, "START", search.Options(16, 16, 4, 4.0))


@pytest.fixture
def short_job(tmp_path: Path) -> Path:
    text = (CONFIGS / "jobs" / "skab-anomaly.toml").read_text()
    path = tmp_path / "short.toml"
    path.write_text(text.replace("rounds = 10", "rounds = 1").replace("local_epochs = 3", "local_epochs = 1"))
    return path


def select(folder: Path, job: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["skab-select", str(folder), "--job", str(job), "--faults", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(result, dict)
    del result["seconds"]
    return result


@pytest.mark.slow
@pytest.mark.usefixtures("small_grid")
def test_the_choice_is_the_same_whatever_the_labels_say_and_none_is_read(
    tmp_path: Path, short_job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    for seed in range(2):
        write_recording(tmp_path / "true" / f"{seed}.csv", seed, rows=450, fault=(400, 450))
        lines = (tmp_path / "true" / f"{seed}.csv").read_text().splitlines()
        noise = [f"{line.rsplit(';', 2)[0]};{rng.integers(2)}.0;{rng.integers(2)}.0" for line in lines[1:]]
        none = [line.rsplit(";", 2)[0] for line in lines]
        for name, text in (("noise", [lines[0], *noise]), ("none", none)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{seed}.csv").write_text("\n".join(text) + "\n")
    read: list[int] = []
    number = skab_files._number

    def noted(row: list[str], place: int) -> float:
        read.append(place)
        return number(row, place)

    monkeypatch.setattr(skab_files, "_number", noted)

    true, noisy, without = (select(tmp_path / name, short_job, capsys) for name in ("true", "noise", "none"))

    assert true == noisy == without
    assert set(read) == set(range(1, 9))  # the channels' columns: not the time, not the labels
    first_steps = true["first_steps"]
    assert isinstance(first_steps, dict)
    followings = 1 if first_steps["follow_rows"] is None else 2
    steps = (2 * 2 * 4 * 2 * 13 * 2 * 2, 2 * 2 * 2, 2 * 2 * 2 * 2 * followings)
    assert true["candidates"] == sum(steps)


def test_the_shipped_job_holds_options_that_the_selection_may_choose() -> None:
    job = read_toml(CONFIGS / "jobs" / "skab-anomaly.toml", Job)
    chosen = {**job.parameters}

    assert chosen["rows"] in search.ROWS
    assert (chosen["hidden"], chosen["code"]) in search.NETWORKS
    assert chosen["clip"] in search.CLIPS
    assert chosen["memory_rows"] in search.MEMORIES
    assert chosen.get("drift_ratio") in search.DRIFT_RATIOS
    assert chosen.get("factor", 1.0) in search.FACTORS
    assert chosen.get("release", 1.0) in search.RELEASES
    assert (chosen.get("spread", "whole"), chosen.get("wander_rows", 0.0)) in search.SPREADS
    assert chosen.get("follow_rows") in (None, *search.FOLLOW_ROWS)
    assert chosen["scaling"] in search.SCALINGS
    assert chosen.get("centring", "fixed") in search.CENTRINGS
    assert chosen["quantile"] == search.QUANTILE


def test_a_folder_without_recordings_is_refused_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["skab-select", str(tmp_path)]) == 1
    assert "no CSV files" in capsys.readouterr().err
