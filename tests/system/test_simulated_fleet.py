"""Engine ``fleet``: a scenario over real processes that are killed, leave and come back, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from hedgerow.shared.job import DeadlineSpec, Job, PrivacySpec, TrainingSpec
from hedgerow.simulations.fleet.schedule import faults_in
from hedgerow.simulations.report.write import write_report
from hedgerow.simulations.run.api import run
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.results import read_result
from hedgerow.simulations.run.toml_text import changed, toml_of
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import FaultsSpec, PopulationSpec, Scenario

if TYPE_CHECKING:
    from hedgerow.simulations.testing import MakeFleet

pytest_plugins = ["hedgerow.simulations.testing"]
pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("simulated-fleet"),
    pytest.mark.timeout(240),
]
ROUNDS = 6
SCENARIO = Scenario(
    "rough",
    Job(
        "rough",
        "digits-cnn",
        PrivacySpec("none"),
        rounds=ROUNDS,
        training=TrainingSpec(learning_rate=0.005, optimizer="adam"),
        deadlines=DeadlineSpec(5.0),
    ),
    PopulationSpec(3),
    seed=223,
    engine="fleet",
    faults=FaultsSpec(leave=0.1, kill=0.1, loss=0.02),
)


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of processes that name the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line and process.pid != psutil.Process().pid:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return run(SCENARIO, folder=folder)


def test_the_scenario_holds_one_power_cut_and_one_device_that_leaves() -> None:
    world = World(SCENARIO, np.zeros(3, np.int64))
    found = [faults_in(SCENARIO, world, round) for round in range(1, ROUNDS + 1)]

    assert [len(one.kill) for one in found] == [0, 1, 0, 0, 0, 0]
    assert [len(one.leave) for one in found] == [0, 0, 0, 1, 0, 0]


def test_all_rounds_are_played_and_each_fault_happened(result: Result) -> None:
    events = [event for one in result.rounds for event in one.events]

    assert (result.engine, result.state, result.devices) == ("fleet", "finished", 3)
    assert [one.round for one in result.rounds] == list(range(1, ROUNDS + 1))
    assert sum("killed and started" in event for event in events) == 1
    assert sum(event.endswith("left") for event in events) == 1


def test_figures_are_the_servers(result: Result) -> None:
    assert result.n_parameters == 38698
    for one in result.rounds:
        assert one.drawn == 3
        assert 1 <= one.counted + one.dropped <= 3
        assert one.bytes_up >= one.counted * 4 * result.n_parameters
        assert one.wall_s > 0
    assert result.score is not None
    assert result.score > result.initial_scores["accuracy"]
    assert result.privacy.epsilon is None
    assert sum(one.rounds for one in result.device_records) == sum(one.counted for one in result.rounds)
    assert {one.n_samples for one in result.device_records} and len(result.model_sha256) == 64


def test_nothing_runs_afterwards(result: Result, folder: Path) -> None:
    del result
    assert not processes_in(folder)


def test_results_can_be_read_and_reported(result: Result, folder: Path, tmp_path: Path) -> None:
    assert read_result(folder) == result
    assert {path.name for path in write_report(result, tmp_path)} >= {"rounds.csv", "report.html"}


def test_a_run_that_is_ended_half_way_leaves_neither_process_nor_folder(tmp_path: Path) -> None:
    file = tmp_path / "rough.toml"
    file.write_text(toml_of(changed(SCENARIO)))
    code = f"from hedgerow.simulations.run.api import run; run({str(file)!r}, rounds=9000)"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not any("agent run" in line for line in processes_in(temporary)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()

    assert not processes_in(temporary)
    assert list(temporary.iterdir()) == []


def test_a_fleet_in_a_test_of_ones_own(fleet: MakeFleet) -> None:
    from hedgerow.simulations.testing import training_job

    running = fleet(devices=2)
    job = running.submit(training_job(rounds=40))
    running.wait_for_round(job, 2)
    running.kill_server()
    running.start_server()
    running.kill(0)
    assert not running.runs(0)
    running.start(0)
    before = running.job(job)["round"]
    running.wait_for_round(job, before + 2)

    assert [one["round"] for one in running.rounds(job)][:3] == [1, 2, 3]
    assert {one["device"] for one in running.devices()} == {"device-0", "device-1"}
    assert running.models() == []
    running.server.client.post(f"jobs/{job}/cancel")
    assert running.wait_for_state(job, "cancelled")["round"] >= before
    assert running.stop(1) == 0
    assert Path(tempfile.gettempdir()) in running.folder.parents
