"""A fleet on this machine: one broker, one server, and agents as processes that joined with tokens of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import psutil

from hedgerow.edge_agent.config import MqttConfig, read_config, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.joining import join
from hedgerow.server.cli.client import OperatorClient
from hedgerow.shared.errors import TransportError
from hedgerow.simulations.processes.broker import Broker, free_port
from hedgerow.simulations.processes.workplace import HEDGEROW, STOP_S, Workplace

HEARTBEAT_S: Final = 1.0


class Server:
    """A server's folder, its process, and the way to its fleet API. It keeps its port over restarts."""

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

    def start(self, command: Sequence[str] = HEDGEROW, environment: Mapping[str, str] | None = None) -> None:
        """Start the process, also again, and return when it listens. Raises TransportError if it does not."""
        self.process = self._work.spawn(
            "server", [*command, "server", "run", "--home", str(self.home), "--json"], environment
        )
        said = self.process.stdout.readline() if self.process.stdout else ""
        if not said:
            raise TransportError(f"the server did not start: {self._work.tail('server')}")
        self.dashboard = f"http://127.0.0.1:{json.loads(said)['operator_port']}"
        self.client = OperatorClient.find(self.home, None, None)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the process by a signal and return its exit status."""
        process, self.process = self.process, None
        return 0 if process is None else self._work.end(process, number)

    def token(self) -> str:
        """Return a one-use join token."""
        return str(self.client.post("join-tokens", {})["token"])


class Agent:
    """One device: its folder, its process, its local status. It joins the fleet when it is made.

    ``url`` is where it will look for its server from then on, by default where the server listens.
    """

    def __init__(
        self,
        work: Workplace,
        server: Server,
        broker: Broker,
        device: str,
        profile: Path,
        *,
        url: str | None = None,
    ) -> None:
        self._work = work
        self.device = device
        self.home = AgentHome(work.folder / device)
        self.process: subprocess.Popen[str] | None = None
        join(server.token(), self.home.path, url=server.url, device=device, mqtt=MqttConfig(url=broker.url))
        shutil.copyfile(profile, self.home.profile)
        config = read_config(self.home.config)
        link = msgspec.structs.replace(config.link, heartbeat_interval_s=HEARTBEAT_S)
        changed = msgspec.structs.replace(config, api_port=0, link=link, server_url=url or config.server_url)
        write_config(self.home.config, changed)

    def ingest(self, *options: str) -> None:
        """Take in files before the agent runs."""
        self._work.run("agent", "ingest", "--home", str(self.home.path), *options)

    def start(self, command: Sequence[str] = HEDGEROW, environment: Mapping[str, str] | None = None) -> int:
        """Start the agent's process, also again, and return its id."""
        self.process = self._work.spawn(
            self.device, [*command, "agent", "run", "--home", str(self.home.path)], environment
        )
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the process by a signal and return its exit status; SIGKILL takes its trainers along, as a power cut does."""
        process, self.process = self.process, None
        if process is None:
            return 0
        children = [] if number != signal.SIGKILL else children_of(process.pid)
        status = self._work.end(process, number)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=STOP_S)
        return status

    def status(self) -> dict[str, Any]:
        """Return what the agent tells on its own device. Raises TransportError while it does not answer."""
        try:
            port = int(self.home.api_port_note.read_text())
            token = self.home.api_token.read_text().strip()
            answer = httpx.get(
                f"http://127.0.0.1:{port}/v1/status", headers={"authorization": f"Bearer {token}"}, timeout=10
            )
            found: dict[str, Any] = answer.raise_for_status().json()
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise TransportError(f"{self.device} does not answer: {error}") from error
        return found


def children_of(pid: int) -> list[psutil.Process]:
    """Return a process's descendants, none if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def in_parallel(make: Callable[[int], Agent], count: int) -> list[Agent]:
    """Return ``make(0)`` to ``make(count - 1)``, made a few at a time."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(make, range(count)))


def wait_for(work: Workplace, what: str, done: Callable[[], bool], timeout_s: float) -> None:
    """Return as soon as ``done``. Raises TransportError if a process ends or it takes too long.

    Processes are looked at from outside, as a person would; inside them nothing polls.
    """
    end = time.monotonic() + timeout_s
    while True:
        work.check()
        try:
            if done():
                return
        except TransportError:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise TransportError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.1)
