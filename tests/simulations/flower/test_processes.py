"""A process's family is found, weighed and ended; a process that took its number is left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hedgerow.simulations.flower.processes import WRITTEN, Member, end_all, family, family_pss, is_alive

_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; held = bytearray(32 << 20); print(1, flush=True); time.sleep(60)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        end_all(family(process.pid))
        process.stdout.close()
        process.wait()


def test_a_family_is_a_process_and_what_it_started(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, child = parent
    assert [member.pid for member in family(process.pid)] == [process.pid, child]


def test_ending_a_family_leaves_nobody(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = parent
    members = family(process.pid)
    end_all(members)
    assert not any(is_alive(member) for member in members)
    assert family(process.pid) == []


def test_children_whose_parent_died_first_are_ended_too(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = parent
    members = family(process.pid)
    process.kill()
    process.wait()
    assert [is_alive(member) for member in members] == [False, True]
    end_all(members)
    assert not is_alive(members[1])


def test_another_process_with_the_same_number_is_not_touched() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (found,) = family(process.pid)
        end_all([Member(found.pid, found.began - 1)])
        time.sleep(0.05)
        assert process.poll() is None
        assert is_alive(found)
    finally:
        process.kill()
        process.wait()


def test_one_that_ended_and_was_not_waited_for_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    (found, *_) = family(process.pid) or [Member(process.pid, 0)]
    assert process.stdout is not None
    process.stdout.read()
    deadline = time.monotonic() + 5
    while is_alive(found) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(found)
    process.stdout.close()
    process.wait()


def test_the_memory_of_a_family_counts_its_children(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, child = parent
    assert family_pss(child) > 32 << 20
    assert 32 << 20 < family_pss(child, WRITTEN) < family_pss(child)
    assert family_pss(process.pid) > family_pss(child)


def test_a_process_that_is_gone_has_no_family_and_no_memory() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert family(process.pid) == []
    assert family_pss(process.pid) == 0
