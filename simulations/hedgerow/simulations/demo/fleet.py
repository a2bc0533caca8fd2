"""The demo's fleet: one broker, one server, and agents as processes that joined with tokens of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from hedgerow.edge_agent.config import read_config, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.server.cli.client import OperatorClient
from hedgerow.shared.errors import TransportError
from hedgerow.simulations.demo.broker import Broker
from hedgerow.simulations.demo.workplace import HEDGEROW, Workplace

STATUS_S: Final = 20.0
HEARTBEAT_S: Final = 1.0


class Server:
    """A server process and the way to its fleet API."""

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self.home = work.folder / "server"
        work.run(
            "server", "init", "--home", str(self.home), "--gateway-host", "127.0.0.1", "--gateway-port", "0",
            "--operator-port", "0", "--no-advertise",
        )  # fmt: skip
        process = work.spawn("server", [*HEDGEROW, "server", "run", "--home", str(self.home), "--json"])
        said = process.stdout.readline() if process.stdout else ""
        if not said:
            raise TransportError(f"the server did not start: {work.tail('server')}")
        ports = json.loads(said)
        self.url = f"https://127.0.0.1:{ports['gateway_port']}"
        self.dashboard = f"http://127.0.0.1:{ports['operator_port']}"
        self.client = OperatorClient.find(self.home, None, None)
        self.operator_token = self.home / "secrets" / "operator-token"

    def token(self) -> str:
        """Return a one-use join token."""
        return str(self.client.post("join-tokens", {})["token"])


class Agent:
    """One device: its folder, its process, its local status."""

    def __init__(self, work: Workplace, server: Server, broker: Broker, device: str, profile: Path) -> None:
        self._work = work
        self.device = device
        self.home = AgentHome(work.folder / device)
        work.run(
            "agent", "join", server.token(), "--url", server.url, "--device", device, "--home", str(self.home.path),
            "--profile", str(profile), "--broker", broker.url, "--json",
        )  # fmt: skip
        config = read_config(self.home.config)
        link = msgspec.structs.replace(config.link, heartbeat_interval_s=HEARTBEAT_S)
        write_config(self.home.config, msgspec.structs.replace(config, api_port=0, link=link))

    def ingest(self, *options: str) -> None:
        """Take in files before the agent runs."""
        self._work.run("agent", "ingest", "--home", str(self.home.path), *options)

    def start(self) -> int:
        """Start the agent's process and return its id."""
        return self._work.spawn(self.device, [*HEDGEROW, "agent", "run", "--home", str(self.home.path)]).pid

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


def in_parallel(make: Callable[[int], Agent], count: int) -> list[Agent]:
    """Return ``make(0)`` to ``make(count - 1)``, made a few at a time."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(make, range(count)))


def wait_for(work: Workplace, what: str, done: Callable[[], bool], timeout_s: float) -> None:
    """Return as soon as ``done``. Raises TransportError if a process ends or it takes too long.

    The demo looks at its processes from outside, as a person would; inside them nothing polls.
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
