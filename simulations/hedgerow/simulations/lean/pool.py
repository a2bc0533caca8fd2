"""Handing orders to workers and collecting replies, exactly once, whatever dies meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Final, Protocol

from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.lean.process import Answer, WorkerProcess

_AHEAD: Final = 2
"""Orders a worker has at once: the next one lies in its pipe while it carries out the first."""
_MOST_DEATHS: Final = 3


class Pool(Protocol):
    """Whoever carries out orders."""

    size: int

    def run(self, orders: Sequence[bytes], reset: Callable[[], None]) -> list[bytes]:
        """Carry out all ``orders`` and return the replies, in no order. ``reset`` undoes what a failed try left."""

    def close(self) -> None:
        """End all workers. Idempotent."""


class InlinePool:
    """Carries orders out in this process: on a GPU, where processes cannot be forked, or to look into with a debugger."""

    size = 1

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def run(self, orders: Sequence[bytes], reset: Callable[[], None]) -> list[bytes]:
        """Carry out ``orders`` one after another."""
        reset()
        return [self._answer(order) for order in orders]

    def close(self) -> None:
        """Do nothing."""


class ForkPool:
    """Worker processes. Used by the process that made it alone; a fork of that one leaves the workers alone."""

    def __init__(self, answer: Answer, size: int) -> None:
        """Fork ``size`` workers."""
        self.size = size
        self._answer = answer
        self._owner = os.getpid()
        self._workers: list[WorkerProcess] = []
        self._start()

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the workers' process ids."""
        return tuple(worker.pid for worker in self._workers)

    def run(self, orders: Sequence[bytes], reset: Callable[[], None]) -> list[bytes]:
        """Carry out ``orders``, given out in their order, and return the replies as they came.

        When a worker dies, what it had added to the shared sums is not known: all workers are ended, new ones forked,
        and everything is done again from ``reset`` on. Raises EngineError when that happened three times.
        """
        deaths = 0
        while True:
            self._start()
            reset()
            try:
                return self._collect(deque(orders))
            except _DiedError as error:
                self._stop(at_once=True)
                deaths += 1
                if deaths == _MOST_DEATHS:
                    raise EngineError(f"{error} (workers died {deaths} times in one batch)") from error
            except BaseException:
                # Ctrl-C, mostly: replies are on their way that nobody will ask for.
                self._stop(at_once=True)
                raise

    def close(self) -> None:
        """End all workers. Idempotent."""
        if os.getpid() == self._owner:
            self._stop(at_once=False)

    def _start(self) -> None:
        while len(self._workers) < self.size:
            self._workers.append(WorkerProcess(self._answer, [worker.pipe for worker in self._workers]))

    def _stop(self, *, at_once: bool) -> None:
        while self._workers:
            self._workers.pop().end(at_once=at_once)

    def _collect(self, waiting: deque[bytes]) -> list[bytes]:
        owing = dict.fromkeys(self._workers, 0)
        replies: list[bytes] = []
        for worker in list(owing) * _AHEAD:
            _give(worker, waiting, owing)
        while any(owing.values()):
            ready = wait([worker.pipe for worker, count in owing.items() if count])
            for worker in [worker for worker in owing if worker.pipe in ready]:
                replies.append(_reply(worker))
                owing[worker] -= 1
                _give(worker, waiting, owing)
        return replies


class _DiedError(Exception):
    """A worker's pipe broke."""


def _give(worker: WorkerProcess, waiting: deque[bytes], owing: dict[WorkerProcess, int]) -> None:
    if waiting:
        try:
            worker.pipe.send_bytes(waiting.popleft())
        except ConnectionError as error:
            raise _DiedError(worker.fate()) from error
        owing[worker] += 1


def _reply(worker: WorkerProcess) -> bytes:
    try:
        return worker.pipe.recv_bytes()
    except (EOFError, ConnectionError) as error:
        raise _DiedError(worker.fate()) from error
