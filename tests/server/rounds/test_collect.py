"""Asking a large cohort: the server serves others meanwhile, and takes the answers of those who are quick."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine

import msgspec
import pytest
from tests.support.fake_fleet import FakeFleet
from tests.support.round_parts import JOB, instruction

from hedgerow.server.rounds.book import Book, Contribution
from hedgerow.server.rounds.collect import Collector, Watch
from hedgerow.server.rounds.link import Reply
from hedgerow.server.rounds.plan import Key, Plan
from hedgerow.server.rounds.waiting import Presence
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.job import TrainInstruction, TrainReply

COHORT = tuple(f"device-{n:03}" for n in range(200))
ASKED = instruction(16, model=bytes(64), sha256=sha256_hex(bytes(64)))


class Asking:
    """An exchange that counts whoever answers, and remembers how much of the cohort was asked by then."""

    index = 0

    def __init__(self, fleet: FakeFleet) -> None:
        self.fleet = fleet
        self.asked_at_answer: list[int] = []

    def instruction(self, device: str, deadline_s: float) -> TrainInstruction:
        return msgspec.structs.replace(ASKED, deadline_s=deadline_s)

    async def accept(self, key: Key, reply: Reply, header: TrainReply) -> Contribution:
        self.asked_at_answer.append(len(self.fleet.sent))
        return Contribution(key.device, "counted")


def collected(
    fleet: FakeFleet, exchange: Asking, beside: Callable[[], Coroutine[None, None, None]] | None = None
) -> Book:
    """Play one exchange with the whole cohort, with another task on the same loop."""

    async def play() -> Book:
        await fleet.open_job(JOB)
        watch = Watch(lambda book: None, lambda device, reason, detail: None)
        now = time.monotonic()
        collector = Collector(fleet, Plan(JOB, 1, 1, COHORT), exchange, Presence(now), watch, 60.0)
        other = asyncio.create_task(beside()) if beside is not None else None
        try:
            return await asyncio.wait_for(collector.run(now + 600.0), 60.0)
        finally:
            if other is not None:
                other.cancel()
                await asyncio.gather(other, return_exceptions=True)

    return asyncio.run(play())


def test_others_are_served_while_a_cohort_is_asked() -> None:
    fleet = FakeFleet(COHORT)
    seen: list[int] = []

    async def beside() -> None:
        while True:
            seen.append(len(fleet.sent))
            await asyncio.sleep(0)

    book = collected(fleet, Asking(fleet), beside)

    assert book.counted == len(COHORT)
    steps = sorted(set(seen))
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) <= 16


def test_answers_of_the_quick_are_taken_before_the_last_is_asked() -> None:
    """Uploads wait for room: with 200 devices of 64 MB in all, none would be free until the last one was asked."""
    fleet = FakeFleet(COHORT)
    exchange = Asking(fleet)

    book = collected(fleet, exchange)

    assert book.counted == len(COHORT)
    assert exchange.asked_at_answer[0] < len(COHORT)
    assert fleet.unreleased == 0


def test_a_cohort_is_asked_the_same_to_the_byte() -> None:
    """Objects are kept by their content: what differs per device would be kept, and hashed, once a device."""
    fleet = FakeFleet(COHORT)
    collected(fleet, Asking(fleet))

    assert [device for device, _ in fleet.sent] == list(COHORT)
    assert len({msgspec.msgpack.encode(asked) for _, asked in fleet.sent}) == 1


def test_a_reply_that_cannot_be_taken_is_released_all_the_same() -> None:
    fleet = FakeFleet(COHORT)

    class Failing(Asking):
        async def accept(self, key: Key, reply: Reply, header: TrainReply) -> Contribution:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        collected(fleet, Failing(fleet))

    assert len(fleet.sent) < len(COHORT)
    assert fleet.unreleased == 0
