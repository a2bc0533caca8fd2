"""What delivery does by the clock: signs again before signatures lapse, counts silent devices as timed out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from hedgerow.server.bus import Bus
from hedgerow.server.delivery.freshness import RENEW_BEFORE, next_due
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.shared.errors import HedgerowError

_LOG = logging.getLogger(__name__)
LONGEST_SLEEP_S = 3600.0
RETRY_S = 60.0


def sleep_s(now: datetime, *moments: datetime | None) -> float:
    """Return how long to sleep until the first of ``moments``, at most an hour (clocks are set), at least nothing."""
    waits = [(moment - now).total_seconds() for moment in moments if moment is not None]
    return max(0.0, min([*waits, LONGEST_SLEEP_S]))


class Upkeep:
    """A task of the server: ``await run()`` until cancelled. Wakes at the next deadline, or when a rollout changes."""

    def __init__(
        self,
        repository: TufRepository,
        rollouts: Rollouts,
        bus: Bus,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._repository = repository
        self._rollouts = rollouts
        self._bus = bus
        self._now = now or (lambda: datetime.now(UTC))

    async def run(self) -> None:
        """Keep signatures fresh and deadlines kept until cancelled."""
        with self._bus.subscribe() as news:
            while True:
                wait_s = await self._once()
                try:
                    async with asyncio.timeout(wait_s):
                        while (await news.get()).topic != "rollout.changed":
                            pass
                except TimeoutError:
                    continue

    async def _once(self) -> float:
        try:
            return await asyncio.to_thread(self.step)
        except HedgerowError as error:
            # A full disk or a key that was moved away must not end the task: devices still hold valid signatures.
            _LOG.error("delivery upkeep failed, trying again in %.0f s: %s", RETRY_S, error)
            return RETRY_S

    def step(self) -> float:
        """Do what is due now and return how long nothing will be, in seconds."""
        signed = self._repository.resign()
        if signed:
            _LOG.info("signed again: %s", ", ".join(sorted(signed)))
        self._rollouts.expire_due()
        deadline = self._rollouts.next_deadline()
        expires = dict(self._repository.state().expires)
        if "root" not in signed and expires["root"] - self._now() <= RENEW_BEFORE["root"]:
            _LOG.warning(
                "the TUF root expires at %s and its key is not here: put it back", expires.pop("root")
            )
        aware = None if deadline is None else deadline.replace(tzinfo=UTC)
        return sleep_s(self._now(), next_due(expires), aware)
