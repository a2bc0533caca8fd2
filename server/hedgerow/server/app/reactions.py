"""What one part's news means to another: devices that join, report or are shut out move rollouts on.

News on the bus may be dropped under load, so every ``RECONCILE_S`` the rollouts are brought in line with who is in the
fleet and what each device reported last.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy.exc import SQLAlchemyError

from hedgerow.server.bus import Bus, News
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.fleet.service import Fleet
from hedgerow.shared.errors import HedgerowError

RECONCILE_S = 15.0
_log = logging.getLogger(__name__)


class Reactions:
    """A task of the server: ``await run()`` until cancelled."""

    def __init__(self, bus: Bus, fleet: Fleet, rollouts: Rollouts) -> None:
        self._bus = bus
        self._fleet = fleet
        self._rollouts = rollouts

    async def run(self) -> None:
        """React to news until cancelled."""
        with self._bus.subscribe() as queue:
            due = time.monotonic() + RECONCILE_S
            while True:
                try:
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await self._guarded(await queue.get())
                except TimeoutError:
                    await self._guarded(None)
                    due = time.monotonic() + RECONCILE_S

    async def _guarded(self, news: News | None) -> None:
        try:
            await asyncio.to_thread(self._reconcile if news is None else lambda: self._react(news))
        except (HedgerowError, SQLAlchemyError) as error:
            _log.error("rollouts: %s; tried again within %.0f s", error, RECONCILE_S)

    def _react(self, news: News) -> None:
        if news.topic == "device.joined":
            self._rollouts.on_joined(news.data["device"])
        elif news.topic == "device.revoked":
            self._rollouts.on_removed(news.data["device"])
        elif news.topic == "device.reported":
            # Who matches a job's profile is known from reports: they must survive a crash, or it would match nobody.
            self._fleet.heartbeats.flush()
            self._rollouts.on_reported(news.data["device"], news.data["state"])

    def _reconcile(self) -> None:
        active = {device.name for device in self._fleet.devices.all(active_only=True)}
        told = [{p.device for p in self._rollouts.devices(r.id)} for r in self._rollouts.in_force()]
        for device in {device for places in told for device in places} - active:
            self._rollouts.on_removed(device)
        for device in active:
            if any(device not in places for places in told):
                self._rollouts.on_joined(device)
        for device, seen in self._fleet.heartbeats.all().items():
            if seen.heartbeat.state is not None:
                self._rollouts.on_reported(device, seen.heartbeat.state)
