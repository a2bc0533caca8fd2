"""Memory that processes share, and locks that the dead do not keep."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

from hedgerow.simulations.lean.arena import Arena, Stripes

FORK = multiprocessing.get_context("fork")


def in_a_fork(what: Callable[[], object]) -> int | None:
    """Carry out ``what`` in a forked process; return its exit code."""
    process = FORK.Process(target=what)
    process.start()
    process.join(30)
    return process.exitcode


@pytest.mark.parametrize("shared", [True, False])
def test_new_memory_is_zero_and_keeps_what_is_written_also_when_it_grows(shared: bool) -> None:
    arena = Arena("a", np.int64, shared=shared)
    first = arena.array(3)
    np.testing.assert_array_equal(first, [0, 0, 0])
    if shared:
        first[:] = 7
        np.testing.assert_array_equal(arena.array(200_000)[:4], [7, 7, 7, 0])
    np.testing.assert_array_equal(arena.array(2, 100_000)[1], np.zeros(100_000))
    arena.close()
    arena.close()


def test_nothing_is_an_array_too() -> None:
    assert Arena("a", np.float32, shared=True).array(0, 5).shape == (0, 5)


def test_a_fork_sees_and_writes_memory_that_was_made_after_it_began() -> None:
    arena = Arena("a", np.float32, shared=True)
    arena.array(2)[:] = 1
    ours, theirs = FORK.Pipe()

    def write() -> None:
        size = theirs.recv()
        arena.array(size)[-1] = 5

    process = FORK.Process(target=write)
    process.start()
    arena.array(1_000_000)[0] = 3
    ours.send(1_000_000)
    process.join(30)
    assert process.exitcode == 0
    np.testing.assert_array_equal(arena.array(1_000_000)[[0, 1, -1]], [3, 1, 5])
    arena.close()


def test_nothing_is_lost_when_several_add_under_locks() -> None:
    arena, stripes = Arena("a", np.int64, shared=True), Stripes()
    arena.array(4)

    def add() -> None:
        for _ in range(2000):
            for number in (0, 1):
                with stripes.held(number):
                    arena.array(4)[2 * number : 2 * number + 2] += 1

    processes = [FORK.Process(target=add) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    np.testing.assert_array_equal(arena.array(4), [6000] * 4)
    arena.close()
    stripes.close()


def test_a_process_that_dies_leaves_no_lock() -> None:
    stripes = Stripes()

    def die() -> None:
        with stripes.held(3):
            os.kill(os.getpid(), signal.SIGKILL)

    def take() -> None:
        with stripes.held(3):
            os._exit(0)

    assert in_a_fork(die) == -signal.SIGKILL
    assert in_a_fork(take) == 0
    stripes.close()
    stripes.close()


def test_locks_counted_from_elsewhere_are_other_locks() -> None:
    stripes = Stripes()

    def take() -> None:
        with stripes.held(2):
            os._exit(0)

    with stripes.above(1 << 40)(2):
        assert in_a_fork(take) == 0
    stripes.close()
