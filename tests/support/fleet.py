"""A real fleet in small: a server with CA, database and TLS gateway, and device homes that joined it by token."""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hedgerow.edge_agent.clock import LastKnownTime
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.joining import join
from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.server.bus import Bus
from hedgerow.server.fleet import Fleet, FleetSettings
from hedgerow.server.gateway import Gateway, GatewayConfig
from hedgerow.server.gateway.tls import gateway_context
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.messages import Heartbeat

T = TypeVar("T")
TUF_ROOT = '{"signatures": [], "signed": {"_type": "root"}}'


class FleetServer:
    """A server in a thread with its own event loop; ``home`` keeps CA and database, so that it can be started again."""

    def __init__(self, home: Path, *, port: int = 0, settings: FleetSettings | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        pki = home / "pki"
        exists = (pki / "ca.key.pem").exists()
        self.authority = CertificateAuthority.load(pki) if exists else CertificateAuthority.create(pki)
        self.database = Database(f"sqlite:///{home / 'hedgerow.db'}")
        Base.metadata.create_all(self.database.engine)
        self.bus = Bus()
        self.fleet = Fleet(
            self.database,
            self.bus,
            self.authority,
            tuf_root=lambda: TUF_ROOT,
            settings=settings or FleetSettings(),
        )
        self._wanted_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet-server", daemon=True)
        self.gateway: Gateway
        self.url = ""

    def start(self) -> FleetServer:
        """Listen, and return itself."""
        self._thread.start()
        self.run(self._start())
        return self

    def stop(self) -> None:
        """Stop as the server does: drain, write down, close."""
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.database.close()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 30) -> T:
        """Run a coroutine on the server's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def join_device(self, home: Path, device: str, groups: tuple[str, ...] = ()) -> AgentHome:
        """Let a device join by a fresh token over the network; return its home."""
        join(self.fleet.tokens.issue(groups).text(), home, url=self.url, device=device)
        return AgentHome(home)

    async def _start(self) -> None:
        self.bus.attach(asyncio.get_running_loop())
        await self.fleet.start()
        pair = self.authority.server_pair()
        context = gateway_context(pair.certificate, pair.key, self.authority.folder / "ca.pem")
        self.gateway = Gateway(
            GatewayConfig(port=self._wanted_port, drain_s=2),
            context,
            self.fleet.devices,
            routes=self.fleet.routes(),
            on_drain=self.fleet.desired.wake_all,
        )
        await self.gateway.start()
        self.url = f"https://127.0.0.1:{self.gateway.port}"

    async def _stop(self) -> None:
        await self.gateway.stop()
        await self.fleet.stop()


@contextmanager
def running_server(
    home: Path, *, port: int = 0, settings: FleetSettings | None = None
) -> Iterator[FleetServer]:
    """Yield a server that is stopped at the end."""
    server = FleetServer(home, port=port, settings=settings).start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running_fleet(folder: Path, n_devices: int = 1) -> Iterator[tuple[FleetServer, list[AgentHome]]]:
    """Yield a server and ``n_devices`` homes, named ``device-0`` and on, that joined it."""
    with running_server(folder / "server") as server:
        yield server, [server.join_device(folder / f"device-{n}", f"device-{n}") for n in range(n_devices)]


def client_of(home: AgentHome, url: str) -> DeviceClient:
    """Return a client that speaks as the device of ``home``."""
    return DeviceClient(url, device_context(home.identity_files()))


def heartbeat_of(device: str, **changes: Any) -> Heartbeat:
    """Return a plain heartbeat."""
    plain: dict[str, Any] = {
        "device": device,
        "sent_us": 1,
        "agent_version": "0",
        "uptime_s": 1.0,
        "pss_bytes": 1,
        "disk_free_bytes": 1,
        "readings_total": 0,
        "quarantined_total": 0,
        "inferences_total": 0,
        "alarms_total": 0,
        "outbox_pending": 0,
        "clock_ok": True,
        "broker_connected": True,
    }
    return Heartbeat(**{**plain, **changes})


def last_known_time(home: AgentHome) -> LastKnownTime:
    """Return the clock file of a home."""
    return LastKnownTime(home.clock)


def main() -> None:
    """Run a server as a process until killed; prints its URL. ``python -m tests.support.fleet --home H --port P``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    server = FleetServer(given.home, port=given.port).start()
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
