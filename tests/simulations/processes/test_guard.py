"""Nothing outlives who started it: not by SIGKILL, not what was stopped, not grandchildren in sessions of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hedgerow.simulations.processes.guard import PREFIX, Guard, marked
from hedgerow.simulations.processes.workplace import Workplace

PATIENCE_S = 30.0
SLEEP = "import time; time.sleep(300)"
# A child that starts a grandchild in a session of its own, and tells both ids.
FAMILY = f"""
import os, subprocess, sys, time
one = subprocess.Popen([sys.executable, "-S", "-c", {SLEEP!r}], start_new_session=True)
print(os.getpid(), one.pid, flush=True)
time.sleep(300)
"""
OWNER = f"""
import sys
from pathlib import Path
from hedgerow.simulations.processes.workplace import Workplace
work = Workplace(Path(sys.argv[1]))
process = work.spawn("family", [sys.executable, "-S", "-c", {FAMILY!r}])
print(work.guard.pid, process.stdout.readline(), flush=True)
sys.stdin.read()
"""


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent does not."""
    try:
        status: str = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return False
    return status != str(psutil.STATUS_ZOMBIE)


def left_of(pids: list[int]) -> list[int]:
    """Return which of ``pids`` still run after patience."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := [pid for pid in pids if lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that owns a workplace, and the ids of its guard, a child and a grandchild."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    yield process, pids
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    for pid in left_of(pids):
        os.kill(pid, signal.SIGKILL)


Owner = tuple[subprocess.Popen[str], list[int]]


def test_children_and_grandchildren_end_when_their_owner_is_killed(owner: Owner) -> None:
    process, pids = owner
    assert len(pids) == 3 and all(lives(pid) for pid in pids)

    process.kill()
    process.wait()

    assert left_of(pids) == []


def test_a_child_that_is_stopped_ends_too(owner: Owner) -> None:
    process, pids = owner
    for pid in pids[1:]:
        os.kill(pid, signal.SIGSTOP)

    process.kill()
    process.wait()

    assert left_of(pids) == []


def test_an_owner_that_ends_without_closing_leaves_nothing(owner: Owner) -> None:
    process, pids = owner
    assert process.stdin is not None
    process.stdin.close()
    process.wait(PATIENCE_S)

    assert left_of(pids) == []


def test_an_orphaned_grandchild_ends_with_the_workplace(tmp_path: Path) -> None:
    work = Workplace(tmp_path)
    process = work.spawn("family", [sys.executable, "-S", "-c", FAMILY])
    assert process.stdout is not None
    child, grandchild = map(int, process.stdout.readline().split())
    work.end(process, signal.SIGKILL)
    assert lives(grandchild)

    work.close()

    assert not lives(child) and not lives(grandchild)
    assert work.guard.pid is None


def test_others_processes_are_left_alone() -> None:
    ours, theirs = Guard(), Guard()
    ours.start()
    environment = {**os.environ, **theirs.environment, f"{PREFIX}of-somebody": "1"}
    process = subprocess.Popen([sys.executable, "-S", "-c", SLEEP], env=environment)
    try:
        ours.close()
        assert process.poll() is None
        (mark,) = theirs.environment
        assert [one.pid for one in marked(mark)] == [process.pid]
    finally:
        process.kill()
        process.wait()


def test_a_guard_starts_once_and_again_after_it_was_closed() -> None:
    guard = Guard()
    assert guard.pid is None
    guard.close()
    guard.start()
    first = guard.pid
    guard.start()
    assert guard.pid == first and first is not None and lives(first)
    guard.close()
    guard.close()
    assert guard.pid is None and not lives(first)

    guard.start()
    assert guard.pid not in (None, first)
    guard.close()


def test_a_guard_inside_a_guarded_process_has_a_mark_of_its_own() -> None:
    outer, inner = Guard(), Guard()
    environment = {**outer.environment, **inner.environment}

    assert len(environment) == 2
    assert all(name.startswith(PREFIX) for name in environment)
