"""``hedgerow simulate`` ended by SIGKILL, which it cannot hear: with no engine does anything go on without it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hedgerow.shared.job import DeadlineSpec, Job, PrivacySpec
from hedgerow.simulations.run.toml_text import changed, toml_of
from hedgerow.simulations.scenario.spec import EngineName, FaultsSpec, PopulationSpec, Scenario

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("simulated-fleet"),
    pytest.mark.timeout(240),
]
PATIENCE_S = 60.0
# Half the devices are stragglers where the engine has processes for them: stopped for most of the time.
SCENARIO = Scenario(
    "killed",
    Job("killed", "mlp", PrivacySpec("none"), rounds=9000, deadlines=DeadlineSpec(20.0)),
    PopulationSpec(2),
    faults=FaultsSpec(straggler_share=0.5, straggler_factor=4.0),
)


def carrying(mark: str) -> list[psutil.Process]:
    """Return the processes that have ``mark`` in their environment, and so come from who was given it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if mark in process.environ():
                found.append(process)
    return found


def left_of(mark: str) -> list[str]:
    """Return what still runs after patience, in words."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := carrying(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """A name for the environment of what a test starts; whatever carries it is ended afterwards."""
    made = f"KILLED_SIMULATION_{uuid.uuid4().hex}"
    yield made
    for process in carrying(made):
        with contextlib.suppress(psutil.Error):
            process.kill()


@pytest.mark.parametrize(("engine", "least"), [("lean", 2), ("flower", 5), ("fleet", 6)])
def test_nothing_goes_on_without_the_command(
    engine: EngineName, least: int, mark: str, tmp_path: Path
) -> None:
    if engine == "flower":
        pytest.importorskip("ray")
    file = tmp_path / "killed.toml"
    file.write_text(toml_of(changed(SCENARIO)))
    command = [sys.executable, "-m", "hedgerow.shared.cli", "simulate", str(file), "--engine", engine]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path / "run"), "--workers", "2"],
        env={**os.environ, mark: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("round "):
                break
        assert process.poll() is None, "".join(said)
        assert len(carrying(mark)) > least

        process.kill()
        process.wait()

    assert left_of(mark) == []
