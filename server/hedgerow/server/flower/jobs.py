"""What a job of the link remembers: instructions without an answer, answers not yet taken, who waits for one."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from hedgerow.server.rounds.link import Reply, Wire
from hedgerow.shared.job import TrainInstruction


@dataclass
class Outstanding:
    """One instruction on its way. ``delivered_to`` is the activation that fetched it; ``frames`` serve a repeat."""

    message_id: str
    device: str
    node_id: int
    instruction: TrainInstruction
    max_bytes: int
    model: memoryview | None = None
    delivered_to: str | None = None
    frames: list[bytes] = field(default_factory=list)
    received_bytes: int = 0
    upload: int = 0


@dataclass
class OpenJob:
    """A job with its Flower run."""

    job_id: str
    run_id: int
    wire: Wire
    model: memoryview | None = None
    model_sha256: str = ""
    outstanding: dict[str, Outstanding] = field(default_factory=dict)
    unreleased: dict[str, Outstanding] = field(default_factory=dict)
    ready: deque[Reply] = field(default_factory=deque)
    takers: deque[asyncio.Future[None]] = field(default_factory=deque)

    def put(self, reply: Reply) -> None:
        """Queue a reply and wake one taker."""
        self.ready.append(reply)
        while self.takers:
            taker = self.takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return

    async def take(self, timeout_s: float) -> Reply | None:
        """Return the next reply as soon as there is one, or None after ``timeout_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self.ready:
            left = deadline - loop.time()
            if left <= 0:
                return None
            taker: asyncio.Future[None] = loop.create_future()
            self.takers.append(taker)
            handle = loop.call_at(deadline, _resolve, taker)
            try:
                await taker
            finally:
                handle.cancel()
                if taker in self.takers:
                    self.takers.remove(taker)
        return self.ready.popleft()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Wakers:
    """Events by key that wake everyone who waits for the key, once."""

    def __init__(self) -> None:
        self._futures: dict[tuple[str, str], set[asyncio.Future[None]]] = {}

    def wake(self, key: tuple[str, str]) -> None:
        """Wake those who wait for ``key``."""
        for future in self._futures.pop(key, ()):
            _resolve(future)

    def wake_all(self) -> None:
        """Wake everyone."""
        for key in list(self._futures):
            self.wake(key)

    async def wait(self, key: tuple[str, str], timeout_s: float) -> None:
        """Return when ``key`` is woken or after ``timeout_s``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._futures.setdefault(key, set()).add(future)
        handle = loop.call_later(timeout_s, _resolve, future)
        try:
            await future
        finally:
            handle.cancel()
            waiting = self._futures.get(key)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._futures[key]
