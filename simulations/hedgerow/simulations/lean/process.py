"""One worker process: forked with everything loaded, ended with its parent whatever becomes of that."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Final

import torch  # here, so that no worker ever loads it for itself

Answer = Callable[[bytes], bytes]
_PDEATHSIG: Final = 1
_END_S: Final = 1.0


class WorkerProcess:
    """A forked process that answers messages, one after another, until its pipe is closed."""

    def __init__(self, answer: Answer, others: Sequence[Connection]) -> None:
        """Fork. ``others`` are the parent's ends of other workers' pipes, which this one must not hold open."""
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        # What exists now is never collected in the child: its collector would touch, and so copy, every page of it.
        gc.freeze()
        # Held back until the child heeds Ctrl-C no more: it would die of one that comes before. The parent gets it afterwards.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process: ForkProcess = context.Process(
                target=_live, args=(answer, theirs, (self.pipe, *others), _parent_if_main()), daemon=True
            )
            self._process.start()
        finally:
            gc.unfreeze()
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid or -1

    def fate(self) -> str:
        """Return how a process ended whose pipe broke, and what usually does that."""
        status = self._status()
        if status is None:
            return "a worker closed its pipe and did not end"
        if status >= 0:
            return f"a worker exited with code {status}; what it wrote to stderr may say why"
        name = signal_name(-status)
        if -status == signal.SIGKILL:
            return f"a worker was ended by {name}: usually the system ran out of memory; try fewer workers"
        return f"a worker was ended by {name}: usually a fault in a native library, or somebody's hand"

    def ended_by(self) -> str:
        """Return the name of the signal that ended a process whose pipe broke, or what else ended it."""
        status = self._status()
        if status is None:
            return "closing its pipe"
        return f"exit code {status}" if status >= 0 else signal_name(-status)

    def _status(self) -> int | None:
        self._process.join(_END_S)
        return self._process.exitcode

    def end(self, *, at_once: bool) -> None:
        """End the process and wait for it: by closing its pipe, or by SIGKILL where it may be busy."""
        self.pipe.close()
        if not at_once:
            self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


def signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def give_back_free_memory() -> None:
    """Return to the system what was freed: pages that a worker would share for nothing, and copy as soon as it writes there."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def _parent_if_main() -> int | None:
    """Return this process if its main thread asks: the kernel ends a child with the *thread* that forked it."""
    return os.getpid() if threading.current_thread() is threading.main_thread() else None


def _live(answer: Answer, pipe: Connection, theirs: Sequence[Connection], parent: int | None) -> None:
    for other in theirs:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if parent is not None:
        ctypes.CDLL(None).prctl(_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            return
    torch.set_num_threads(1)
    while True:
        try:
            pipe.send_bytes(answer(pipe.recv_bytes()))
        except (EOFError, ConnectionError):
            return
