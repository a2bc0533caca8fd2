"""News inside the server process: parts publish what happened, the monitor and the dashboard listen.

The bus carries no state: what must survive is in the database before it is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

QUEUE_LIMIT = 1000
STOPPING = "server.stopping"
"""The last topic: whoever streams to a client ends the stream."""


@dataclass(frozen=True)
class News:
    """One thing that happened. ``topic`` is dotted: ``round.committed``, ``device.heartbeat``, ``event.received``."""

    topic: str
    data: dict[str, Any] = field(default_factory=dict)


class Bus:
    """Fans news out to subscribers on one event loop; a slow subscriber loses the oldest news, never blocks."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[News]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop on which subscribers live, so that other threads may publish."""
        self._loop = loop

    def publish(self, topic: str, **data: Any) -> None:
        """Tell every subscriber; callable from any thread."""
        news = News(topic, data)
        if self._loop is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._deliver, news)

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[News]]:
        """Yield a queue of news, bounded by ``QUEUE_LIMIT``."""
        queue: asyncio.Queue[News] = asyncio.Queue(QUEUE_LIMIT)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    def _deliver(self, news: News) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(news)
