"""A fleet that runs: broker, server, and devices behind proxies of their own, to be broken and mended at will."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from hedgerow.edge_agent.samples.ingest import ingest_arrays
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.errors import TransportError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.specs import TensorSpec
from hedgerow.simulations.fleet.proxy import Network, Weather
from hedgerow.simulations.population.pool import Labelled
from hedgerow.simulations.processes.broker import Broker
from hedgerow.simulations.processes.fleet import Agent, Server, in_parallel
from hedgerow.simulations.processes.workplace import HEDGEROW, Workplace
from hedgerow.simulations.run.toml_text import changed, toml_of

FINAL: Final = frozenset({"delivered", "failed", "cancelled"})
LOOK_S: Final = 0.05
CONNECT_S: Final = 180.0
_CALM: Final = Weather()


class Launch(NamedTuple):
    """How a device's agent is started: the command in front of ``agent run``, and more for its environment."""

    command: Sequence[str] = HEDGEROW
    environment: Mapping[str, str] = {}


_HONEST: Final = Launch()


def device_name(number: int) -> str:
    """Return a device's name in the fleet."""
    return f"device-{number}"


class RunningFleet:
    """One server and ``len(data)`` agents as processes in ``folder``; devices are numbered from 0.

    ``data`` is what each device stores, of ``spec``. Used as a context manager; ``close`` ends every process, also after an
    exception, and leaves the folder; so does this process's end by SIGKILL. Raises TransportError where something does not start.
    """

    def __init__(
        self,
        folder: Path,
        data: Sequence[Labelled],
        spec: TensorSpec,
        *,
        profile: DeviceProfile | None = None,
        weather: Weather = _CALM,
        launch: Callable[[int], Launch] = lambda _: _HONEST,
    ) -> None:
        self.folder = folder
        self.work = Workplace(folder)
        self._data = data
        self._spec = spec
        self._profile = folder / "profile.toml"
        self._profile.write_text(profile_text(profile, spec), encoding="utf-8")
        self._weather = weather
        self._launch = launch
        self._broker = Broker(folder / "broker", guard=self.work.guard)
        self.network: Network
        self.server: Server
        self.agents: list[Agent] = []

    def __enter__(self) -> RunningFleet:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job | str) -> str:
        """Submit a job (a value, or its TOML) and return its id. Raises ConfigError as the server does."""
        toml = job if isinstance(job, str) else toml_of(changed(job))
        return str(self.server.client.post("jobs", {"toml": toml})["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as the fleet API shows it."""
        found: dict[str, Any] = self.server.client.get(f"jobs/{job_id}")
        return found

    def rounds(self, job_id: str) -> list[dict[str, Any]]:
        """Return a job's committed rounds."""
        return list(self.server.client.get(f"jobs/{job_id}/rounds"))

    def events(self, device: int | None = None) -> list[dict[str, Any]]:
        """Return events, newest first, of one device or of all."""
        only = {} if device is None else {"device": device_name(device)}
        return list(self.server.client.get("events", limit=1000, **only))

    def models(self) -> list[dict[str, Any]]:
        """Return the registered model versions."""
        return list(self.server.client.get("models"))

    def devices(self) -> list[dict[str, Any]]:
        """Return the devices as the server sees them."""
        return list(self.server.client.get("devices"))

    def wait(self, what: str, done: Callable[[], Any], timeout_s: float = 120.0) -> Any:
        """Return what ``done`` returns once that is true.

        Looked at from outside; a server that does not answer meanwhile counts as not yet. Raises TransportError if it takes
        longer than ``timeout_s``, or a process ends that nobody here ended.
        """
        end = time.monotonic() + timeout_s
        while True:
            self.work.check()
            with contextlib.suppress(TransportError):
                if found := done():
                    return found
            if time.monotonic() > end:
                raise TransportError(
                    f"{what}: not within {timeout_s:.0f} s; the logs are in {self.work.logs}"
                )
            time.sleep(LOOK_S)

    def wait_connected(self, timeout_s: float = CONNECT_S) -> None:
        """Return when the server knows every device's profile. Raises TransportError as ``wait``."""

        def there() -> bool:
            found = self.devices()
            known = all(one["profile"] and one["status"] == "online" for one in found)
            return known and len(found) == len(self.agents)

        self.wait("agents connect", there, timeout_s)

    def wait_for_round(self, job_id: str, number: int, timeout_s: float = 120.0) -> dict[str, Any]:
        """Return the job once it has committed ``number`` rounds. Raises TransportError if it ends before."""

        def there() -> dict[str, Any] | None:
            job = self.job(job_id)
            if job["round"] < number and job["state"] in FINAL:
                raise RuntimeError(f"job {job_id} is {job['state']}: {job['reason']}")
            return job if job["round"] >= number else None

        return self._waited(f"round {number} of {job_id}", there, timeout_s)

    def wait_for_state(self, job_id: str, state: str, timeout_s: float = 180.0) -> dict[str, Any]:
        """Return the job once it is in ``state``. Raises TransportError if it ends in another."""

        def there() -> dict[str, Any] | None:
            job = self.job(job_id)
            if job["state"] != state and job["state"] in FINAL:
                raise RuntimeError(f"job {job_id} is {job['state']}: {job['reason']}")
            return job if job["state"] == state else None

        return self._waited(f"{job_id} {state}", there, timeout_s)

    def kill(self, device: int) -> None:
        """Fail a device's power: SIGKILL to its agent and trainers."""
        self.agents[device].end(signal.SIGKILL)

    def stop(self, device: int) -> int:
        """Ask a device's agent to end, and return its exit status."""
        return self.agents[device].end(signal.SIGTERM)

    def start(self, device: int) -> None:
        """Start a device's agent (again)."""
        launch = self._launch(device)
        self.agents[device].start(launch.command, launch.environment)

    def runs(self, device: int) -> bool:
        """Tell whether a device's agent runs."""
        process = self.agents[device].process
        return process is not None and process.poll() is None

    def kill_server(self) -> None:
        """End the server with SIGKILL, as it is."""
        self.server.end(signal.SIGKILL)

    def stop_server(self) -> int:
        """Ask the server to end, and return its exit status."""
        return self.server.end(signal.SIGTERM)

    def start_server(self) -> None:
        """Start the server again, on the same port, and return when it listens."""
        self.server.start()

    def store(self, device: int, data: Labelled) -> None:
        """Replace what a device has stored. Its agent must not run: this is another disk put in."""
        home = self.agents[device].home
        for path in home.path.glob(f"{home.samples.name}*"):
            path.unlink()
        self._ingest(device, data)

    def close(self) -> None:
        """End every process and the network. Idempotent."""
        self.work.end_all()
        if hasattr(self, "network"):
            self.network.close()
        self._broker.close()
        self.work.close()

    def _waited(
        self, what: str, there: Callable[[], dict[str, Any] | None], timeout_s: float
    ) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.wait(what, there, timeout_s)
        except RuntimeError as error:
            raise TransportError(str(error)) from error
        return found

    def _open(self) -> None:
        self._broker.start()
        self.server = Server(self.work)
        self.server.start()
        self.network = Network(self.server.url.removeprefix("https://"), self._weather)
        self.agents = in_parallel(self._join, len(self._data))
        for device in range(len(self._data)):
            self._ingest(device, self._data[device])
            self.start(device)

    def _join(self, device: int) -> Agent:
        url = f"https://{self.network.address(device)}"
        return Agent(self.work, self.server, self._broker, device_name(device), self._profile, url=url)

    def _ingest(self, device: int, data: Labelled) -> None:
        if not len(data):
            return
        path = self.folder / f"{device_name(device)}.npz"
        if data.labels is None:
            np.savez(path, x=data.samples)
        else:
            np.savez(path, x=data.samples, y=data.labels)
        store = SampleStore(self.agents[device].home.samples, max_bytes=2**40, max_age_s=None)
        try:
            ingest_arrays(path, self._spec, store)
        finally:
            store.close()
            path.unlink()


def profile_text(profile: DeviceProfile | None, spec: TensorSpec) -> str:
    """Return the profile of all devices as TOML: the population's, or the plainest one that stores ``spec``."""
    plain = profile or DeviceProfile("simulated", 1, tensor=(spec,))
    if spec.name != plain.window.name and spec.name not in {tensor.name for tensor in plain.tensor}:
        plain = msgspec.structs.replace(plain, tensor=(*plain.tensor, spec))
    return toml_of(changed(plain))
