"""What one part's news means to another: devices that join or report move rollouts on; nothing is lost if news are.

News on the bus may be dropped under load; every ``RECONCILE_S`` all devices' latest reports are taken in again.
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
        elif news.topic == "device.reported":
            self._rollouts.on_reported(news.data["device"], news.data["state"])

    def _reconcile(self) -> None:
        for device, seen in self._fleet.heartbeats.all().items():
            if seen.heartbeat.state is not None:
                self._rollouts.on_reported(device, seen.heartbeat.state)
