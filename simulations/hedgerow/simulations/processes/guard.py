"""A guard beside processes that must not outlive who started them: it waits for that one's end and ends what is left.

Every guarded process carries a mark in its environment, and so does all that it starts itself, whatever sessions and
groups these make: trainers, workbenches, programs that know nothing of this one. The guard waits for the end of a pipe
that its owner alone holds, which comes however the owner ends, by SIGKILL too. SIGKILL is what it sends: a process that was
stopped (a slow device) hears nothing else. The kernel's own word for this (``PR_SET_PDEATHSIG``) is no help to
grandchildren, and fires already when the thread that forked ends.

Two limits: a process that empties its environment is not found, and if the guard is killed first nobody takes its place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from typing import Final

import psutil

PREFIX: Final = "HEDGEROW_GUARD_"
"""Of the mark's name. Each guard has a name of its own: in a fleet started by a guarded process, both marks are there."""
_LOOKS: Final = 2
_LOOK_S: Final = 0.05
_CLOSE_S: Final = 30.0


class Guard:
    """Guards the processes started with ``environment``; it starts with the first call of ``start``. Safe for threads."""

    def __init__(self) -> None:
        self._mark = PREFIX + secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process's environment needs for this guard to know it."""
        return {self._mark: "1"}

    @property
    def pid(self) -> int | None:
        """The guard's process id, None while it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the guard unless it runs: before the first process that it is to guard."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                # -P: the working directory must not be able to shadow an installed module.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, self._mark],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )

    def close(self) -> None:
        """End whatever still carries the mark, and the guard. Idempotent."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def marked(mark: str) -> list[psutil.Process]:
    """Return the other processes that have ``mark`` in their environment, as far as this user may look."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and mark in process.environ():
                found.append(process)
    return found


def end_marked(mark: str) -> None:
    """Kill all processes with ``mark``, also those that begin meanwhile: until there are none in two looks."""
    quiet = 0
    while quiet < _LOOKS:
        found = marked(mark)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        quiet = 0 if found else quiet + 1
        if quiet < _LOOKS:
            time.sleep(_LOOK_S)


def main(arguments: list[str]) -> int:
    """Wait until standard input ends, then end what carries the mark."""
    (mark,) = arguments
    while os.read(0, 4096):
        pass
    end_marked(mark)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
