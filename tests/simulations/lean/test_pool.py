"""Orders handed out and replies collected: each once, by whoever is free, whatever dies."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.util import register_after_fork
from pathlib import Path

import numpy as np
import psutil
import pytest

from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.lean.arena import Arena
from hedgerow.simulations.lean.pool import ForkPool, InlinePool, Pool


def nothing() -> None:
    """Undo nothing."""


def doubled(order: bytes) -> bytes:
    return order + order


@pytest.fixture(params=[0, 1, 3])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    made: Pool = ForkPool(doubled, request.param) if request.param else InlinePool(doubled)
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 500])
def test_every_order_is_answered_once(pool: Pool, count: int) -> None:
    orders = [f"{number};".encode() for number in range(count)]
    for _ in range(2):
        assert Counter(pool.run(orders, nothing)) == Counter(order + order for order in orders)


def test_reset_comes_before_the_orders(pool: Pool) -> None:
    resets: list[int] = []
    pool.run([b"a"], lambda: resets.append(1))
    assert resets == [1]


def test_messages_of_many_kilobytes_pass(pool: Pool) -> None:
    orders = [bytes([number]) * 30_000 for number in range(20)]
    assert sorted(pool.run(orders, nothing)) == [order + order for order in orders]


def test_a_slow_order_does_not_hold_up_the_others() -> None:
    done = Arena("done", np.int64, shared=True)
    done.array(1)

    def answer(order: bytes) -> bytes:
        # The slow one has the next order in its pipe; all others must be carried out by the other worker meanwhile.
        while order == b"slow" and done.array(1)[0] < 39:
            time.sleep(0.001)
        done.array(1)[0] += order == b"quick"
        return str(os.getpid()).encode() + b" " + order

    pool = ForkPool(answer, 2)
    replies = [reply.split() for reply in pool.run([b"slow", *[b"quick"] * 40], nothing)]
    pool.close()
    slow = next(pid for pid, order in replies if order == b"slow")
    assert sum(pid == slow for pid, _ in replies) == 2
    done.close()


def test_workers_are_asked_at_once_and_not_one_after_another() -> None:
    def answer(order: bytes) -> bytes:
        return str(os.getpid()).encode()

    pool = ForkPool(answer, 3)
    assert len(set(pool.run([b"x"] * 3, nothing))) == 3
    assert {int(pid) for pid in pool.run([b"x"] * 3, nothing)} == set(pool.pids)
    pool.close()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_death_begins_the_batch_again_from_a_reset(tmp_path: Path, deaths: int) -> None:
    total = Arena("sum", np.int64, shared=True)
    total.array(1)
    for number in range(deaths):
        (tmp_path / str(number)).touch()

    def answer(order: bytes) -> bytes:
        if order == b"5" and (left := list(tmp_path.iterdir())):
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        total.array(1)[0] += int(order)
        return order

    def reset() -> None:
        total.array(1)[0] = 0

    pool = ForkPool(answer, 1)
    orders = [str(number).encode() for number in range(8)]
    assert sorted(pool.run(orders, reset)) == orders
    assert total.array(1)[0] == 28
    pool.close()
    total.close()


def test_the_third_death_is_told_and_a_later_batch_begins_to_count_anew(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()

    def answer(order: bytes) -> bytes:
        if broken.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return order

    pool = ForkPool(answer, 2)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"SIGTERM: usually a fault in a native library.*3 times"):
            pool.run([b"a", b"b"], nothing)
    broken.unlink()
    assert sorted(pool.run([b"a", b"b"], nothing)) == [b"a", b"b"]
    pool.close()


def test_an_interruption_ends_busy_workers_at_once() -> None:
    def answer(order: bytes) -> bytes:
        time.sleep(600)
        return order

    def raised(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    pool = ForkPool(answer, 2)
    workers = [psutil.Process(pid) for pid in pool.pids]
    before = signal.signal(signal.SIGALRM, raised)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.run([b"a", b"b"], nothing)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not any(worker.is_running() for worker in workers)
    pool.close()


class Early:
    """What a signal before a worker's first line is bound to."""


def test_workers_do_not_heed_ctrl_c_themselves() -> None:
    early = Early()  # gone with this test
    register_after_fork(early, lambda _: os.kill(os.getpid(), signal.SIGINT))
    pool = ForkPool(doubled, 2)
    try:
        pids = pool.pids
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        assert sorted(pool.run([b"a", b"b"], nothing)) == [b"aa", b"bb"]
        assert pool.pids == pids
    finally:
        pool.close()


def test_ctrl_c_while_workers_are_forked_reaches_the_parent_afterwards() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pool = ForkPool(doubled, 1)
    pool.close()

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_fork_of_the_parent_leaves_its_workers_alone() -> None:
    pool = ForkPool(doubled, 1)
    child = os.fork()
    if child == 0:
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    pids = pool.pids
    assert pool.run([b"a"], nothing) == [b"aa"]
    assert pool.pids == pids
    pool.close()


def test_closing_is_quick_final_and_idempotent() -> None:
    pool = ForkPool(doubled, 2)
    workers = [psutil.Process(pid) for pid in pool.pids]
    pool.close()
    pool.close()
    assert not any(worker.is_running() for worker in workers)
