"""News reach every subscriber from any thread; a slow one loses the oldest and blocks nobody."""

from __future__ import annotations

import asyncio
import threading

from hedgerow.server.bus import QUEUE_LIMIT, Bus, News


def test_news_from_another_thread_reach_all_subscribers() -> None:
    async def scene() -> list[News]:
        bus = Bus()
        bus.attach(asyncio.get_running_loop())
        with bus.subscribe() as one, bus.subscribe() as two:
            threading.Thread(target=lambda: bus.publish("round.committed", round=3)).start()
            return [await asyncio.wait_for(queue.get(), 30) for queue in (one, two)]

    first, second = asyncio.run(scene())
    assert first == second == News("round.committed", {"round": 3})


def test_a_slow_subscriber_loses_the_oldest() -> None:
    async def scene() -> tuple[int, int]:
        bus = Bus()
        bus.attach(asyncio.get_running_loop())
        with bus.subscribe() as queue:
            for n in range(QUEUE_LIMIT + 10):
                bus.publish("t", n=n)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return queue.qsize(), queue.get_nowait().data["n"]

    assert asyncio.run(scene()) == (QUEUE_LIMIT, 10)


def test_after_leaving_nothing_is_delivered() -> None:
    async def scene() -> int:
        bus = Bus()
        bus.attach(asyncio.get_running_loop())
        with bus.subscribe() as queue:
            pass
        bus.publish("t")
        await asyncio.sleep(0)
        return queue.qsize()

    assert asyncio.run(scene()) == 0


def test_publishing_before_the_loop_runs_is_harmless() -> None:
    Bus().publish("t")
