"""A server and agents as processes that tests may kill: the demo's, with a server that can be started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from hedgerow.server.cli.client import OperatorClient
from hedgerow.shared.errors import TransportError
from hedgerow.simulations.demo import fleet
from hedgerow.simulations.demo.broker import free_port
from hedgerow.simulations.demo.workplace import HEDGEROW, Workplace

STOP_S = 40.0


class ServerProcess(fleet.Server):
    """``hedgerow server run`` on a folder and ports of its own; stopped, killed and started at will."""

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self.home = work.folder / "server"
        self.url = f"https://127.0.0.1:{free_port()}"
        self.log = work.logs / "server.log"
        self.process: subprocess.Popen[str] | None = None
        work.run(
            "server", "init", "--home", str(self.home), "--gateway-host", "127.0.0.1", "--gateway-port",
            self.url.rpartition(":")[2], "--operator-port", "0", "--no-advertise",
        )  # fmt: skip
        self.operator_token = self.home / "secrets" / "operator-token"

    def start(self, record_to: Path | None = None) -> None:
        """Start it and return once it listens; ``record_to`` gets what devices send."""
        command: Sequence[str] = HEDGEROW
        if record_to is not None:
            command = (sys.executable, "-m", "tests.support.recording_server", str(record_to))
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, "server", "run", "--home", str(self.home), "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        said = self.process.stdout.readline() if self.process.stdout else ""
        if not said:
            raise TransportError(f"the server did not start: {self.log.read_text()[-2000:]}")
        self.dashboard = f"http://127.0.0.1:{json.loads(said)['operator_port']}"
        self.client = OperatorClient.find(self.home, None, None)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            status = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = -1
        if process.stdout is not None:
            process.stdout.close()
        return status


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
