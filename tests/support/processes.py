"""A server and agents as processes that tests may kill, with a server whose traffic can be recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from hedgerow.shared.errors import TransportError
from hedgerow.simulations.processes import fleet
from hedgerow.simulations.processes.workplace import HEDGEROW, Workplace

ROOT = Path(__file__).parents[2]


class ServerProcess(fleet.Server):
    """``hedgerow server run`` on a folder and ports of its own; stopped, killed and started at will."""

    def start(
        self,
        command: Sequence[str] = HEDGEROW,
        environment: Mapping[str, str] | None = None,
        *,
        record_to: Path | None = None,
    ) -> None:
        """Start it and return once it listens; ``record_to`` gets what devices send."""
        if record_to is not None:
            command = (sys.executable, "-m", "tests.support.recording_server", str(record_to))
            # The module lies beside the project, which is no installed package.
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            environment = {**(environment or {}), "PYTHONPATH": path}
        super().start(command, environment)


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[tuple[Workplace, ServerProcess]]:
    """Yield a folder for processes with a server in it, not yet started; end all of them."""
    work = Workplace(folder)
    server = ServerProcess(work)
    try:
        yield work, server
    finally:
        work.close()
        server.end(signal.SIGTERM)


def trainers_of(agent_pid: int) -> list[psutil.Process]:
    """Return the trainer processes that an agent has running."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(agent_pid).children(recursive=True)
        return [child for child in children if _is_trainer(child)]
    return []


def kill_trainer(agent_pid: int) -> None:
    """End an agent's trainer as the kernel would: SIGKILL. Raises TransportError if it has none."""
    found = trainers_of(agent_pid)
    if not found:
        raise TransportError(f"agent {agent_pid} has no trainer")
    for process in found:
        os.kill(process.pid, signal.SIGKILL)


def until(what: str, done: Callable[[], Any], timeout_s: float = 90.0) -> Any:
    """Return what ``done`` returns once that is true. Raises TransportError if it takes too long.

    Looks from outside, as a person would; an answer that fails meanwhile counts as not yet.
    """
    end = time.monotonic() + timeout_s
    while True:
        failed: Exception | None = None
        try:
            if found := done():
                return found
        except TransportError as error:
            failed = error
        if time.monotonic() > end:
            raise TransportError(f"{what}: not within {timeout_s:.0f} s") from failed
        time.sleep(0.05)


def _is_trainer(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("hedgerow.edge_agent.trainer" in part for part in process.cmdline())
    return False
