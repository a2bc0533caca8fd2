from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hedgerow.server.fleet.events import MAX_EPOCHS_PER_DEVICE, Events
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import (
    Alarm,
    AlarmCleared,
    ChannelShare,
    Event,
    EventAck,
    EventBatch,
    EventBody,
    GapRecord,
    Notice,
)


def notice(sequence: int, text: str = "") -> Event:
    return Event(sequence, sequence * 10, "info", Notice("n", text))


def batch(first: int, last: int, epoch: str = "e") -> EventBatch:
    return EventBatch(epoch, tuple(notice(n) for n in range(first, last + 1)))


def receive(server: Any, given: EventBatch, device: str = "a") -> EventAck:
    ack: EventAck = asyncio.run(server.fleet.events.receive(device, given))
    return ack


def sequences(server: Any, **query: Any) -> list[int]:
    return [kept.event.sequence for kept in reversed(server.fleet.events.latest(limit=1000, **query))]


def test_ack_is_cumulative_and_repeats_are_kept_once(server: Any) -> None:
    assert receive(server, batch(1, 5)) == EventAck("e", 5)
    assert receive(server, batch(1, 5)) == EventAck("e", 5)
    assert receive(server, batch(3, 8)) == EventAck("e", 8)

    assert sequences(server) == list(range(1, 9))


def test_devices_and_epochs_count_apart(server: Any) -> None:
    receive(server, batch(1, 3))
    receive(server, batch(1, 2), device="b")
    assert receive(server, batch(1, 1, epoch="other")) == EventAck("other", 1)

    assert sequences(server, device="a") == [1, 2, 3, 1]
    assert sequences(server, device="b") == [1, 2]


def test_counting_goes_on_after_a_restart(server: Any) -> None:
    receive(server, batch(1, 5))
    restarted = server.again()

    assert receive(restarted, batch(4, 7)) == EventAck("e", 7)
    assert sequences(restarted) == list(range(1, 8))
    restarted.database.close()


def test_every_kind_of_body_comes_back_as_it_was(server: Any) -> None:
    bodies: list[EventBody] = [
        Alarm(9.0, 3.0, 1, 2, (ChannelShare("flow", 0.8),), "m", "b" * 64, "litert", "int8", "champion"),
        AlarmCleared("m", 3, 1.5),
        Notice("code", "text ä"),
        GapRecord(4, 4, "full"),
    ]
    sent = EventBatch("e", tuple(Event(n + 1, n, "critical", body) for n, body in enumerate(bodies)))
    receive(server, sent)

    assert [kept.event for kept in reversed(server.fleet.events.latest())] == list(sent.events)
    assert sequences(server, kind="alarm") == [1]
    assert sequences(server, severity="info") == []


def test_listing_pages_from_newest_to_oldest(server: Any) -> None:
    receive(server, batch(1, 10))
    first = server.fleet.events.latest(limit=4)
    second = server.fleet.events.latest(limit=100, before_id=first[-1].id)

    assert [kept.event.sequence for kept in first + second] == list(range(10, 0, -1))


def test_what_the_device_no_longer_has_is_noted_as_a_gap(server: Any) -> None:
    receive(server, batch(1, 2))
    assert receive(server, batch(6, 7)).up_to == 7

    (gap,) = server.fleet.events.latest(kind="gap")
    assert gap.event.body == GapRecord(3, 5, "lost-between")


def test_news_once_per_event_after_the_commit(server: Any) -> None:
    async def scenario() -> list[Any]:
        server.bus.attach(asyncio.get_running_loop())
        with server.bus.subscribe() as queue:
            for _ in range(2):
                await server.fleet.events.receive("a", batch(1, 3))
            await asyncio.sleep(0)
            return [queue.get_nowait() for _ in range(queue.qsize())]

    news = asyncio.run(scenario())
    assert [(n.topic, n.data["device"], n.data["sequence"]) for n in news] == [
        ("event.received", "a", s) for s in (1, 2, 3)
    ]
    assert news[0].data["body"] == Notice("n", "")


def test_concurrent_repeats_are_kept_once(server: Any) -> None:
    async def scenario() -> list[EventAck]:
        return list(
            await asyncio.gather(*(server.fleet.events.receive("a", batch(1, 20)) for _ in range(10)))
        )

    assert asyncio.run(scenario()) == [EventAck("e", 20)] * 10
    assert sequences(server) == list(range(1, 21))


def test_oldest_go_when_the_bounds_are_reached_and_do_not_come_back(server: Any) -> None:
    events = Events(server.database, server.bus, max_events=12, max_per_device=8)
    for device in ("a", "b"):
        asyncio.run(events.receive(device, batch(1, 10)))
    assert events.prune() == 8

    assert sequences(server, device="a") == [7, 8, 9, 10]
    assert sequences(server, device="b") == list(range(3, 11))
    assert asyncio.run(events.receive("a", batch(1, 10))).up_to == 10
    assert sequences(server, device="a") == [7, 8, 9, 10]
    assert events.prune() == 0


def test_device_that_makes_up_epochs_is_stopped(server: Any) -> None:
    for n in range(MAX_EPOCHS_PER_DEVICE):
        receive(server, batch(1, 1, epoch=str(n)))

    with pytest.raises(ContentError, match="outboxes"):
        receive(server, batch(1, 1, epoch="one more"))
    assert receive(server, batch(1, 2, epoch="0")).up_to == 2


def test_event_that_is_too_large_is_refused_whole(server: Any) -> None:
    shares = tuple(ChannelShare("c" * 128, 0.5) for _ in range(200))
    large = Event(2, 0, "critical", Alarm(1.0, 1.0, 1, 2, shares, "m", "", "", "", ""))
    with pytest.raises(ContentError, match="event 2"):
        receive(server, EventBatch("e", (notice(1), large)))

    assert sequences(server) == []
