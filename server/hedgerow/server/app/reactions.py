"""What one part's news means to another: devices that join, report or are shut out move rollouts on.

News on the bus may be dropped under load, so every ``RECONCILE_S`` the rollouts are brought in line with who is in the
fleet and what each device reported last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from hedgerow.server.bus import Bus, News
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.fleet.service import Fleet
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.messages import ReportedState

RECONCILE_S = 15.0
GATHER_S: Final = 0.05
_TOPICS: Final = frozenset({"device.joined", "device.revoked", "device.reported"})
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
                if time.monotonic() >= due:
                    await self._guarded(self._reconcile)
                    due = time.monotonic() + RECONCILE_S
                try:
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        news = [await queue.get()]
                except TimeoutError:
                    continue
                if news[0].topic not in _TOPICS:
                    continue
                # A fleet that is asked something new reports all at once: one write for many, not one each.
                await asyncio.sleep(GATHER_S)
                while not queue.empty():
                    news.append(queue.get_nowait())
                heard = [one for one in news if one.topic in _TOPICS]
                await self._guarded(partial(self._react, heard))

    async def _guarded(self, act: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(act)
        except (HedgerowError, SQLAlchemyError) as error:
            _log.error("rollouts: %s; tried again within %.0f s", error, RECONCILE_S)

    def _react(self, heard: Sequence[News]) -> None:
        """React to news in order; of what one device reported in them, the last counts."""
        reported: dict[str, ReportedState] = {}
        for news in heard:
            if news.topic == "device.joined":
                self._rollouts.on_joined(news.data["device"])
            elif news.topic == "device.revoked":
                self._rollouts.on_removed(news.data["device"])
            else:
                reported[news.data["device"]] = news.data["state"]
        if not reported:
            return
        # Who matches a job's profile is known from reports: they must survive a crash, or it would match nobody.
        self._fleet.heartbeats.flush()
        self._report(reported)

    def _reconcile(self) -> None:
        told = [{p.device for p in self._rollouts.devices(r.id)} for r in self._rollouts.in_force()]
        if not told:
            return
        active = {device.name for device in self._fleet.devices.all(active_only=True)}
        for device in {device for places in told for device in places} - active:
            self._rollouts.on_removed(device)
        for device in active:
            if any(device not in places for places in told):
                self._rollouts.on_joined(device)
        seen = self._fleet.heartbeats.all().items()
        self._report({device: s.heartbeat.state for device, s in seen if s.heartbeat.state is not None})

    def _report(self, reported: Mapping[str, ReportedState]) -> None:
        """Tell the rollouts what devices reported, if there is one: it asks the database for each device."""
        if self._rollouts.in_force():
            for device, state in reported.items():
                self._rollouts.on_reported(device, state)
