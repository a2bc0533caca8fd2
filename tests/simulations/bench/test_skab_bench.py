"""The SKAB benchmark end to end: on a made-up rig for its promises, on the recordings (where they are) for its worth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.configs import CONFIGS
from tests.support.skab import skab_folder
from tests.support.skab_rig import write_recording

from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.simulations.bench import skab, skab_select
from hedgerow.simulations.bench.skab import main, run
from hedgerow.simulations.configs import configs_folder


def arguments(*folders: Path, epsilon: float | None = None, job: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(
        folders=list(folders),
        epsilon=epsilon,
        fit_rows=400,
        job=job or CONFIGS / "jobs" / "skab-anomaly.toml",
        profile=CONFIGS / "profiles" / "skab.toml",
    )


@pytest.fixture
def short_job(tmp_path: Path) -> Path:
    text = (CONFIGS / "jobs" / "skab-anomaly.toml").read_text()
    path = tmp_path / "short.toml"
    path.write_text(text.replace("rounds = 10", "rounds = 2").replace("local_epochs = 3", "local_epochs = 1"))
    return path


@pytest.mark.slow
def test_a_made_up_rig_is_judged_with_and_without_privacy(tmp_path: Path, short_job: Path) -> None:
    for seed in range(2):
        write_recording(tmp_path / "rig" / f"{seed}.csv", seed, rows=700, fault=(500, 600))

    result = run(arguments(tmp_path / "rig", epsilon=8.0, job=short_job))

    assert result["files"] == 2 and result["rows_scored"] == 2 * 300
    assert result["everything_is_anomaly"]["f1"] == pytest.approx(0.5)
    for precision in ("float32", "int8"):
        assert result["federated"][precision]["f1"] > 0.8
        assert result["federated"][precision]["far_percent"] < 20
    assert result["private"]["epsilon"] <= 8
    assert result["private"]["delta"] <= 1 / (10 * result["private"]["examples_per_device"])


@pytest.mark.slow
def test_labels_choose_nothing(tmp_path: Path, short_job: Path) -> None:
    for name, fault in (("true", (500, 560)), ("wrong", (405, 420))):
        for seed in range(2):
            write_recording(tmp_path / name / f"{seed}.csv", seed, rows=600, fault=(500, 560), labels=fault)

    true, wrong = (run(arguments(tmp_path / name, job=short_job))["federated"] for name in ("true", "wrong"))

    def alarms(rates: dict[str, float], anomalous: int) -> float:
        normal = 400 - anomalous
        return (1 - rates["mar_percent"] / 100) * anomalous + rates["far_percent"] / 100 * normal

    assert alarms(true["float32"], 120) == pytest.approx(alarms(wrong["float32"], 30))
    assert true["float32"]["f1"] > wrong["float32"]["f1"]


def test_what_cannot_be_scored_is_refused_before_training(tmp_path: Path) -> None:
    write_recording(tmp_path / "short" / "0.csv", 0, rows=300, fault=(200, 250))

    with pytest.raises(ContentError, match="at least 401"):
        run(arguments(tmp_path / "short"))
    with pytest.raises(ConfigError, match="no CSV files"):
        run(arguments(tmp_path))


@pytest.mark.slow
@pytest.mark.skab
def test_four_real_recordings_beat_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], short_job: Path
) -> None:
    source, folder = skab_folder() / "valve1", tmp_path / "four"
    folder.mkdir()
    for name in ("3", "4", "9", "12"):
        (folder / f"{name}.csv").write_bytes((source / f"{name}.csv").read_bytes())

    assert main([str(folder), "--job", str(short_job), "--json"]) == 0

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["federated"]["float32"]["f1"] > result["everything_is_anomaly"]["f1"] + 0.1
    assert result["federated"]["int8"]["f1"] == pytest.approx(result["federated"]["float32"]["f1"], abs=0.03)
    assert np.isfinite(list(result["statistical_baseline"].values())).all()


@pytest.mark.parametrize("epsilon", ["0", "-1", "101", "nan", "inf", "eight"])
def test_an_epsilon_that_no_job_may_ask_for_is_wrong_usage(
    epsilon: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nowhere", f"--epsilon={epsilon}"])

    assert ended.value.code == 2
    assert "--epsilon" in capsys.readouterr().err


@pytest.mark.parametrize("parser", [skab._parser, skab_select._parser])
def test_the_job_and_the_profile_are_those_that_come_along(parser: Any) -> None:
    args = parser().parse_args(["folder"])

    assert args.job == configs_folder() / "jobs" / "skab-anomaly.toml"
    assert args.profile == configs_folder() / "profiles" / "skab.toml"
    assert args.job.is_file()
    assert args.profile.is_file()
