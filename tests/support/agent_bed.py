"""One real device in a fleet of one: server and agent as processes, a broker, an int8 model already installed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
from tests.support.agent_profile import CHANNELS, ROWS
from tests.support.broker import Publisher
from tests.support.bundles import WindowNet, write_bundle

from hedgerow.edge_agent.config import TrainerConfig, read_config, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.slots.record import InstalledFile
from hedgerow.edge_agent.slots.slots import Slots
from hedgerow.server.app.home import ServerHome
from hedgerow.server.bus import Bus
from hedgerow.server.cli.client import OperatorClient
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.fleet.desired import DesiredStates
from hedgerow.server.registry.service import Registry
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Database
from hedgerow.shared.bundle import sha256_hex
from hedgerow.simulations.processes.broker import Broker, free_port
from hedgerow.simulations.processes.workplace import HEDGEROW, Workplace

DEVICE: Final = "dev-1"
TOPIC: Final = f"plant/{DEVICE}"
WAIT_S: Final = 60.0
QUIET: Final = 16
START_S: Final = 1_767_225_600
_CHANNEL = (
    '[[channel]]\nname = "{}"\nunit = "1"\nminimum = -100.0\nmaximum = 100.0\nnominal = 0.0\nspread = 1.0\n'
)
PROFILE: Final = (
    'name = "test-device"\nversion = 1\nruntimes = ["onnxruntime"]\n'
    f"[window]\nlength = {ROWS}\nstride = {ROWS}\nrate_hz = 1.0\n"
    + "".join(map(_CHANNEL.format, CHANNELS))
    + '[[source]]\ntopic = "plant/{device}"\ntimestamp = "t"\ntimestamp_unit = "s"\n'
)
# Runs the real command; SIGUSR1 makes it write down what it has loaded.
_WATCHED: Final = """
import signal, sys
def tell(*_):
    with open({path!r}, "w") as file:
        file.write("\\n".join(sorted(sys.modules)) + "\\nend")
signal.signal(signal.SIGUSR1, tell)
{before}
from hedgerow.shared.cli import main
raise SystemExit(main())
"""


def until(done: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Return what ``done`` returns as soon as it is true. Another process offers nothing to wait on."""
    end = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
    return found


class AgentBed:
    """The fleet of one in ``folder``; ``close`` ends all of it."""

    def __init__(self, folder: Path) -> None:
        self.work = Workplace(folder)
        self.broker = Broker(folder / "broker")
        self.broker.start()
        self.server_home = folder / "server"
        self._server: subprocess.Popen[str] | None = None
        self.home = AgentHome(folder / DEVICE)
        self.agent: subprocess.Popen[bytes] | None = None
        self.modules = folder / "modules"
        self.row = 0
        # The same few windows again and again: what is quiet once is never a false alarm.
        self._quiet = np.random.default_rng(3).normal(scale=0.5, size=(QUIET * ROWS, len(CHANNELS)))
        port = str(free_port())
        self.work.run(
            "server", "init", "--home", str(self.server_home), "--gateway-host", "127.0.0.1",
            "--gateway-port", port, "--operator-port", "0", "--no-advertise",
        )  # fmt: skip
        self.start_server()
        profile = folder / "profile.toml"
        profile.write_text(PROFILE)
        token = str(self.client.post("join-tokens", {})["token"])
        self.work.run(
            "agent", "join", token, "--url", f"https://127.0.0.1:{port}", "--device", DEVICE,
            "--home", str(self.home.path), "--profile", str(profile), "--broker", self.broker.url,
        )  # fmt: skip
        self.configure(trainer=False)
        self.bundle = self._install(folder / "bundle")
        self.publisher = Publisher(self.broker)

    def configure(self, *, trainer: bool, max_backoff_s: float = 0.5) -> None:
        """Set what these tests need: any free port, quick heartbeats, short waits between tries, a trainer or none."""
        config = read_config(self.home.config)
        link = msgspec.structs.replace(config.link, heartbeat_interval_s=0.5, max_backoff_s=max_backoff_s)
        changed = msgspec.structs.replace(
            config, api_port=0, link=link, trainer=TrainerConfig(enabled=trainer)
        )
        write_config(self.home.config, changed)

    def start_server(self) -> None:
        """Start the server, again on its port."""
        command = [*HEDGEROW, "server", "run", "--home", str(self.server_home), "--json"]
        self._server = self.work.spawn("server", command)
        assert self._server.stdout is not None
        json.loads(self._server.stdout.readline())
        self.client = OperatorClient.find(self.server_home, None, None)

    def kill_server(self) -> None:
        """End the server with SIGKILL."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def start(
        self, *, before: str = "", stderr: int | None = None, environment: dict[str, str] | None = None
    ) -> int:
        """Start the agent, after ``before`` in its process, with more in its environment; return its id."""
        code = _WATCHED.format(path=str(self.modules), before=before)
        command = [sys.executable, "-c", code, "agent", "run", "--home", str(self.home.path)]
        with (self.work.logs / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=stderr or log, env=os.environ | (environment or {})
            )
        return self.agent.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the agent by a signal and return its exit status."""
        agent, self.agent = self.agent, None
        assert agent is not None
        agent.send_signal(number)
        return agent.wait(WAIT_S)

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        port = int(self.home.api_port_note.read_text())
        headers = {"authorization": f"Bearer {self.home.api_token.read_text().strip()}"}
        found = httpx.request(
            method, f"http://127.0.0.1:{port}{path}", json=body, headers=headers, timeout=10
        )
        answer: dict[str, Any] = found.raise_for_status().json()
        return answer

    def status(self) -> dict[str, Any]:
        """Return the agent's status; empty while it does not answer."""
        try:
            return self._call("GET", "/v1/status")
        except (OSError, ValueError, httpx.HTTPError):
            return {}

    def answer(self) -> dict[str, Any]:
        """Return the agent's answer for a quiet window; empty while there is none."""
        try:
            data = np.zeros((ROWS, len(CHANNELS))).tolist()
            return self._call("POST", "/v1/predict", {"spec": "window", "data": data})
        except (OSError, ValueError, httpx.HTTPError):
            return {}

    def publish(self, windows: int, value: float | None = None) -> None:
        """Publish whole windows of readings, quiet ones or all of ``value``; return when the broker has them."""
        numbers = []
        for _ in range(windows * ROWS):
            values = self._quiet[self.row % len(self._quiet)] if value is None else [value] * 3
            reading = {"t": START_S + self.row, **dict(zip(CHANNELS, map(float, values), strict=True))}
            self.publisher.publish(self.row, TOPIC, json.dumps(reading).encode())
            numbers.append(self.row)
            self.row += 1
        until(lambda: self.publisher.acknowledged.issuperset(numbers))

    def waiting(self, kind: str) -> int:
        """Return how many events of one kind are committed in the agent's outbox and not yet acknowledged."""
        database = sqlite3.connect(f"{self.home.outbox.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            bodies = [json.loads(row[0])["body"] for row in database.execute("SELECT body FROM events")]
        finally:
            database.close()
        return sum(body["type"] == kind for body in bodies)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the device's events of one kind that the server has."""
        found: Sequence[dict[str, Any]] = self.client.get("events", device=DEVICE, limit=1000)
        return [event for event in found if event["kind"] == kind]

    def loaded(self) -> set[str]:
        """Return the modules that the agent's process has loaded now."""
        assert self.agent is not None
        self.modules.unlink(missing_ok=True)
        self.agent.send_signal(signal.SIGUSR1)
        lines: list[str] = until(
            lambda: (
                self.modules.exists()
                and self.modules.read_text().endswith("end")
                and self.modules.read_text().splitlines()
            )
        )
        return set(lines)

    def roll_out(self, folder: Path) -> str:
        """Register another bundle and send every device to it, in the server's folder while no server runs."""
        home = ServerHome(self.server_home)
        database = Database(home.database_url(home.read_config()))
        try:
            registry = Registry(database, Blobs(home.blobs / "bundles"), Bus())
            fleet = DesiredStates(database)
            fleet.load()
            rollouts = Rollouts(
                database, Bus(), registry=registry, repository=TufRepository(home.tuf, KeyFolder(home.secrets / "tuf")),
                desired=fleet, active_devices=lambda: [DEVICE],
            )  # fmt: skip
            # The bed's own bundle has the first number.
            registry.next_version("pump")
            version = registry.next_version("pump")
            write_bundle(folder, WindowNet(version), kinds=[("onnxruntime", "int8")], version=version)
            rollouts.start("pump", registry.register(folder).version)
        finally:
            database.close()
        return sha256_hex((folder / "manifest.json").read_bytes())

    def close(self) -> None:
        """End every process."""
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
        self.publisher.close()
        self.work.close()
        self.broker.close()

    def _install(self, bundle: Path) -> str:
        write_bundle(bundle, kinds=[("onnxruntime", "int8")])
        slots = Slots(self.home.slots, "pump")
        digest = sha256_hex((bundle / "manifest.json").read_bytes())
        incoming, files = slots.prepare(digest), {}
        for path in bundle.iterdir():
            data = path.read_bytes()
            (incoming / path.name).write_bytes(data)
            files[path.name] = InstalledFile(len(data), sha256_hex(data))
        slots.seal(1, digest, files)
        slots.activate(digest)
        return digest
