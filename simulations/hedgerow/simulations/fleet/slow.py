"""Slow devices: their processes are stopped and let go on, over and over, so that they have a share of the time alone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Collection
from typing import Final

import psutil

from hedgerow.simulations.processes.fleet import children_of

PERIOD_S: Final = 0.5


class Slowdown:
    """Lets the processes that ``pids`` names, and their children, run for 1 / ``factor`` of the time until ``close``."""

    def __init__(self, pids: Callable[[], Collection[int]], factor: float) -> None:
        self._pids = pids
        self._run_s = PERIOD_S / factor
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hedgerow-slow-devices", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let all of them run again. Idempotent."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._run_s):
            stopped = [one for pid in self._pids() for one in _family(pid)]
            try:
                _tell(stopped, signal.SIGSTOP)
                self._ended.wait(PERIOD_S - self._run_s)
            finally:
                _tell(stopped, signal.SIGCONT)


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *children_of(pid)]
    return []


def _tell(processes: Collection[psutil.Process], number: int) -> None:
    for process in processes:
        # psutil knows a process by its start too: a number used again is not signalled.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
