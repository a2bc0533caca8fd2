"""A scene is whole before anything starts: profiles that agents can read, jobs that a server takes, machines enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.skab import skab_folder

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import check_profile
from hedgerow.shared.tomlfile import parse_toml
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo.flow import job_toml
from hedgerow.simulations.demo.scene import Scene, recorded, simulated

CONFIGS = configs_folder()
SKAB = CONFIGS / "profiles" / "skab.toml"


def check(scene: Scene) -> None:
    for device in scene.texts:
        check_profile(scene.profile_of(device), device)
    runtimes = [scene.profile_of(device).runtimes for device in scene.texts]
    assert ("litert",) in runtimes
    assert ("onnxruntime",) in runtimes
    for job in scene.jobs:
        again = parse_toml(job_toml(job).encode(), Job, "job")
        assert again == job
        find_recipe(job.recipe).check(job.parameters)
    assert scene.jobs[0].privacy.mode == "example"
    assert (scene.jobs[0].privacy.epsilon or 99) <= 8


def test_the_simulated_scene_is_whole() -> None:
    scene = simulated(CONFIGS, seed=1)

    check(scene)
    assert len(scene.sensors) == 5
    windows = (scene.training_rows - scene.profile.window.length) // scene.profile.window.stride + 1
    delta = scene.jobs[0].privacy.delta
    assert delta is not None
    assert delta <= 1 / (10 * windows)


@pytest.mark.skab
def test_the_recorded_scene_is_whole() -> None:
    scene = recorded(CONFIGS, skab_folder() / "valve1", SKAB, 5)

    check(scene)
    assert list(scene.sensors) == [f"skab-{n}" for n in range(5)]
    assert scene.jobs[0].parameters["scaling"] == "public"


def test_too_few_recordings_are_refused(tmp_path: Path) -> None:
    header = "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS;anomaly;changepoint"
    rows = [";".join(["2020-01-01 00:00:00", *map(str, np.zeros(10))]) for _ in range(600)]
    (tmp_path / "0.csv").write_text("\n".join([header, *rows]))

    with pytest.raises(ConfigError, match="1 recordings; the demo plays 5"):
        recorded(CONFIGS, tmp_path, SKAB, 5)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no CSV files"):
        recorded(CONFIGS, tmp_path, SKAB, 5)
