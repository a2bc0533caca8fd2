"""Asking a cohort and taking in its answers, until all came or nothing more is worth waiting for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hedgerow.server.rounds.book import Book, Contribution
from hedgerow.server.rounds.exchange import Exchange
from hedgerow.server.rounds.link import FleetLink, Reply
from hedgerow.server.rounds.plan import Key, Plan
from hedgerow.server.rounds.waiting import Presence, wait_until
from hedgerow.shared.errors import TransportError, UpdateRejectedError

_RESEND_S: Final = 0.25
_LOOK_S: Final = 1.0
_LOOK_MIN_S: Final = 0.02
_MAX_REASON_CHARS: Final = 200
_ASKED_AT_ONCE: Final = 16


class Watch(NamedTuple):
    """What the collector tells while it works: ``progress(book)`` and ``rejected(device, reason, detail)``."""

    progress: Callable[[Book], None]
    rejected: Callable[[str, str, str], None]


class Collector:
    """Runs one exchange over the link. ``presence`` outlives it: it belongs to the job."""

    def __init__(
        self,
        link: FleetLink,
        plan: Plan,
        exchange: Exchange,
        presence: Presence,
        watch: Watch,
        rejoin_wait_s: float,
    ) -> None:
        self.book = Book(plan.cohort)
        self._link = link
        self._plan = plan
        self._exchange = exchange
        self._presence = presence
        self._watch = watch
        self._rejoin_wait_s = rejoin_wait_s
        self._seen: set[str] = set()
        self._look_at = float("-inf")

    async def run(self, deadline: float) -> Book:
        """Ask everybody and return the closed book; ``deadline`` is in monotonic seconds.

        What is still unanswered then is abandoned: late replies do not count.
        """
        job_id = self._plan.job_id
        try:
            await self._ask_all(_left_s(deadline))
            while (wait_s := self._wait_s(deadline)) is not None:
                reply = await self._link.next_reply(job_id, wait_s)
                if reply is None:
                    await self._send_again(deadline)
                else:
                    await self._settle(reply)
        finally:
            await self._link.abandon(job_id, self.book.close())
        return self.book

    def _wait_s(self, deadline: float) -> float | None:
        """Return how long to wait for the next reply, None when the exchange is over."""
        now = time.monotonic()
        self._look_now_and_then(now)
        until = wait_until(
            self.book.owing,
            self._seen,
            self._presence,
            now=now,
            deadline=deadline,
            rejoin_wait_s=self._rejoin_wait_s,
        )
        if until is None:
            return None
        # Replies end the wait at once; the bound is for what the link does not announce: who comes and who goes.
        all_asked = self.book.owing <= self.book.messages.keys()
        return min(until - now, _LOOK_S if all_asked else _RESEND_S)

    def _look_now_and_then(self, now: float) -> None:
        """Look who is there; not at every reply, for a large fleet is long to count."""
        if now < self._look_at:
            return
        online = self._link.online(self._plan.job_id)
        self._presence.note(online, now)
        self._settle_gone()
        self._seen |= self.book.owing & online
        self._look_at = now + _LOOK_MIN_S

    def _settle_gone(self) -> None:
        """Wait no longer for devices that were drawn and then shut out before they could be asked."""
        for device in sorted(self.book.owing & self._link.gone()):
            # For one that was asked the link answers itself, so that it is counted once.
            if device not in self.book.messages:
                self.book.settle(Contribution(device, "missing", "left the fleet"))

    async def _ask_all(self, left_s: float) -> None:
        """Ask the cohort, a few at a time: to ask a thousand takes most of a second, in which others want to be served.

        Who is quick has answered by then; uploads wait for room until such replies are taken.
        """
        cohort = self._plan.cohort
        for start in range(0, len(cohort), _ASKED_AT_ONCE):
            # Who is there as it is asked, and dies of it at once, was there.
            self._look_now_and_then(time.monotonic())
            few = [d for d in cohort[start : start + _ASKED_AT_ONCE] if d in self.book.owing]
            await self._send(few, left_s)
            await asyncio.sleep(0)
            while (reply := await self._link.next_reply(self._plan.job_id, 0.0)) is not None:
                await self._settle(reply)

    async def _settle(self, reply: Reply) -> None:
        """Take one reply in, and let go of its bytes whatever comes of it."""
        try:
            await self._take(reply)
        finally:
            await self._link.release(reply)
        self._watch.progress(self.book)

    async def _send(self, devices: Sequence[str], left_s: float) -> None:
        for device in devices:
            instruction = self._exchange.instruction(device, left_s)
            try:
                self.book.messages[device] = await self._link.send(self._plan.job_id, device, instruction)
            except TransportError:
                continue  # not reachable yet: asked again as soon as it is online

    async def _send_again(self, deadline: float) -> None:
        online = self._link.online(self._plan.job_id)
        unsent = tuple(d for d in sorted(self.book.owing & online) if d not in self.book.messages)
        await self._send(unsent, _left_s(deadline))

    async def _take(self, reply: Reply) -> None:
        key = Key(self._plan.job_id, self._plan.round, self._exchange.index, reply.device)
        self.book.bytes_up += reply.n_bytes
        try:
            self.book.admit(reply)
        except UpdateRejectedError as error:
            self.book.strays[error.reason] += 1
            self._watch.rejected(reply.device, error.reason, error.detail)
            return
        self.book.settle(await self._judge(key, reply))

    async def _judge(self, key: Key, reply: Reply) -> Contribution:
        declined = reply.error or (reply.header.error if reply.header else "no header")
        if declined or reply.header is None:
            reason = (declined or "no header")[:_MAX_REASON_CHARS]
            return Contribution(key.device, "declined", reason, reply.n_bytes)
        try:
            return await self._exchange.accept(key, reply, reply.header)
        except UpdateRejectedError as error:
            self._watch.rejected(key.device, error.reason, error.detail)
            return Contribution(key.device, "rejected", error.reason, reply.n_bytes)


def _left_s(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
