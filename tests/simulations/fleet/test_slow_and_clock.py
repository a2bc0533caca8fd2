"""Slow devices have a share of the time and all of it afterwards; a wrong clock is wrong by what was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.tools import need_program

from hedgerow.shared.errors import UnsupportedError
from hedgerow.simulations.fleet.clock import skewed_environment
from hedgerow.simulations.fleet.slow import Slowdown

WAIT_S = 20.0
# Starts a child of its own and waits for it.
FAMILY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); import time; time.sleep(600)'])"


@pytest.fixture
def family() -> Iterator[list[psutil.Process]]:
    process = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    parent = psutil.Process(process.pid)
    members = [parent, *parent.children()]
    assert len(members) == 2
    yield members
    for member in reversed(members):
        member.kill()
    process.wait()
    process.stdout.close()


def seen(members: list[psutil.Process], stopped: bool) -> bool:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if all((member.status() == psutil.STATUS_STOPPED) is stopped for member in members):
            return True
        time.sleep(0.005)
    return False


def test_a_process_and_its_children_stand_still_and_go_on_until_closed(family: list[psutil.Process]) -> None:
    slowdown = Slowdown(lambda: [family[0].pid], factor=5.0)
    try:
        assert seen(family, stopped=True)
        assert seen(family, stopped=False)
        assert seen(family, stopped=True)
    finally:
        slowdown.close()

    assert not [member for member in family if member.status() == psutil.STATUS_STOPPED]


def test_a_process_that_is_gone_is_passed_over(family: list[psutil.Process]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    slowdown = Slowdown(lambda: [gone.pid, family[0].pid], factor=5.0)
    try:
        assert seen(family, stopped=True)
    finally:
        slowdown.close()


@pytest.mark.parametrize("skew_s", [-86_400.0, 3600.0])
def test_a_clock_is_wrong_by_what_was_asked_for_children_too(tmp_path: Path, skew_s: float) -> None:
    need_program("cc")
    environment = {**os.environ, **skewed_environment(tmp_path, skew_s)}
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(time.time(), time.monotonic())'])"
    before, steady = time.time(), time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=True
    )
    wall, monotonic = map(float, said.stdout.split())

    assert before + skew_s - 1 <= wall <= time.time() + skew_s + 1
    assert steady <= monotonic <= time.monotonic()


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(UnsupportedError, match="apt install gcc"):
        skewed_environment(tmp_path, 5.0)
