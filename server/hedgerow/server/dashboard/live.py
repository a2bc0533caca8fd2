"""Server-sent events: tells signed-in browsers which topics have news; they fetch the fragments they show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from hedgerow.server.bus import STOPPING, Bus

KEEP_ALIVE_S = 15.0


async def stream(
    bus: Bus, still_allowed: Callable[[], bool], keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncIterator[bytes]:
    """Yield server-sent events, one per news topic, until ``still_allowed`` says no or the server stops.

    Only the topic travels, no data: the browser's fetch of the fragment is authorised anew.
    """
    with bus.subscribe() as queue:
        yield b"retry: 1000\n\nevent: hello\ndata: {}\n\n"
        while still_allowed():
            try:
                news = await asyncio.wait_for(queue.get(), keep_alive_s)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            topics = {news.topic}
            while not queue.empty():
                topics.add(queue.get_nowait().topic)
            if STOPPING in topics:
                return
            yield b"event: news\ndata: " + json.dumps(sorted(topics)).encode() + b"\n\n"
