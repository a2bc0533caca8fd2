"""Puts the fleet's parts together and keeps their housekeeping going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import Route

from hedgerow.server.bus import Bus
from hedgerow.server.fleet.desired import DesiredStates
from hedgerow.server.fleet.devices import Devices
from hedgerow.server.fleet.enrolment import Enrolment
from hedgerow.server.fleet.events import Events
from hedgerow.server.fleet.heartbeats import Heartbeats
from hedgerow.server.fleet.routes import DeviceRoutes, TrainerExited
from hedgerow.server.fleet.tokens import JoinTokens
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import StorageError

_log = logging.getLogger(__name__)


class FleetSettings(msgspec.Struct, frozen=True):
    """Bounds and intervals of the fleet's bookkeeping."""

    heartbeat_flush_s: float = 30.0
    housekeeping_s: float = 600.0
    revocation_list_s: float = 7 * 86_400.0
    max_events: int = 500_000
    max_events_per_device: int = 20_000


DEFAULT_SETTINGS: Final = FleetSettings()


class Fleet:
    """The fleet: ``devices``, ``enrolment``, ``tokens``, ``desired``, ``heartbeats``, ``events``, and the routes that devices use.

    ``tuf_root`` returns the trusted root that a joining device starts from (JSON text).
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        authority: CertificateAuthority,
        *,
        tuf_root: Callable[[], str],
        settings: FleetSettings = DEFAULT_SETTINGS,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self.devices = Devices(database, bus, authority, now)
        self.enrolment = Enrolment(database, bus, authority, self.devices, tuf_root=tuf_root, now=now)
        self.tokens = JoinTokens(database, authority.pin, now)
        self.desired = DesiredStates(database)
        self.heartbeats = Heartbeats(database, bus, now=now)
        self.events = Events(
            database,
            bus,
            max_events=settings.max_events,
            max_per_device=settings.max_events_per_device,
            now=now,
        )
        self._served = DeviceRoutes(authority.pem, self.enrolment, self.desired, self.heartbeats, self.events)
        self._tasks: list[asyncio.Task[None]] = []
        self.devices.on_revoked.append(self._forget)

    def routes(self) -> list[Route]:
        """Return the routes under ``/v1/device/`` that the fleet serves."""
        return self._served.routes()

    def on_trainer_exit(self, hear: TrainerExited) -> None:
        """Call ``hear(device, TrainerExit)`` when an agent reports that its trainer died; it may be a coroutine."""
        self._served.on_trainer_exit.append(hear)

    async def start(self) -> None:
        """Load what the database holds and start the housekeeping; before the gateway listens."""
        self.desired.attach(asyncio.get_running_loop())
        await asyncio.to_thread(self._load)
        every = {
            "heartbeats": (self._settings.heartbeat_flush_s, self.heartbeats.flush),
            "events": (self._settings.housekeeping_s, self.events.prune),
            "certificates": (self._settings.housekeeping_s, self.devices.registry.drop_ended),
            "revocation-list": (self._settings.revocation_list_s, self.devices.sign_revocation_list),
        }
        for name, (interval_s, work) in every.items():
            task = asyncio.create_task(_repeat(name, interval_s, work), name=f"fleet-{name}")
            self._tasks.append(task)

    async def stop(self) -> None:
        """End the long polls and the housekeeping, and write down the last heartbeats."""
        self.desired.wake_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await asyncio.to_thread(self.heartbeats.flush)

    def _load(self) -> None:
        self.devices.load()
        self.desired.load()
        self.heartbeats.load()

    def _forget(self, device: str) -> None:
        self.desired.forget(device)
        self.heartbeats.forget(device)


async def _repeat(name: str, interval_s: float, work: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await asyncio.to_thread(work)
        except (SQLAlchemyError, StorageError) as error:
            _log.error("%s: %s; tried again in %.0f s", name, error, interval_s)
