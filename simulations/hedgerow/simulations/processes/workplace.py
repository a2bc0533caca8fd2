"""A folder and its processes: started here, logged here, ended here, the last one first.

Should this process end without ending them, by SIGKILL say, a guard ends them and what they started (``guard``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hedgerow.shared.errors import TransportError
from hedgerow.simulations.processes.guard import Guard

STOP_S: Final = 20.0
_TAIL_BYTES: Final = 2000
# What runs is the installed command, wherever its interpreter lies.
HEDGEROW: Final = (sys.executable, "-m", "hedgerow.shared.cli")


class Workplace:
    """Runs commands and keeps processes in ``folder``; ``close`` ends all of them and returns when they are gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._running: list[tuple[str, subprocess.Popen[str]]] = []
        self._lock = threading.Lock()
        self.guard = Guard()
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.guard.environment}

    def run(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Run ``hedgerow ARGUMENTS`` to its end and return its output. Raises TransportError with its last words."""
        self.guard.start()
        done = subprocess.run(
            [*HEDGEROW, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self._environment,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-_TAIL_BYTES:]
            raise TransportError(f"hedgerow {' '.join(arguments[:2])} ended with {done.returncode}: {said}")
        return done.stdout

    def spawn(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process that runs until ``end`` or ``close``; its errors go on at the end of ``logs/NAME.log``.

        It has a session of its own: a Ctrl-C in the terminal is heard here alone, and ended in order from here.
        """
        self.guard.start()
        with (self.logs / f"{name}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
        with self._lock:
            self._running.append((name, process))
        return process

    def check(self) -> None:
        """Raise TransportError if a process that should run has ended, with the end of its log."""
        with self._lock:
            ended = [(name, p.returncode) for name, p in self._running if p.poll() is not None]
        if ended:
            name, code = ended[0]
            raise TransportError(f"{name} ended with {code}: {self.tail(name)}")

    def end(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
        """End one process by a signal, or by force if it does not listen, and return its exit status."""
        with self._lock:
            self._running = [(name, one) for name, one in self._running if one is not process]
        process.send_signal(number)
        return _gone(process)

    def tail(self, name: str) -> str:
        """Return the end of a process's log."""
        data = (self.logs / f"{name}.log").read_bytes()[-_TAIL_BYTES:]
        return data.decode("utf-8", "replace").strip()

    def end_all(self) -> None:
        """End every process, the last started first: asked, then forced."""
        with self._lock:
            running, self._running = self._running[::-1], []
        for _, process in running:
            process.terminate()
        for _, process in running:
            _gone(process)

    def close(self) -> None:
        """End every process as ``end_all``, and whatever one of them left behind. Idempotent."""
        self.end_all()
        self.guard.close()


def _gone(process: subprocess.Popen[str]) -> int:
    try:
        status = process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return status
