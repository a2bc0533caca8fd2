"""How many bytes of uploads the server holds at once: a slot is taken before a body is read, given back at release."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class InflightBudget:
    """Admits uploads first come, first served, while their declared sizes fit into ``max_bytes``.

    One upload larger than the whole budget is admitted alone, so that a large model is slow, never impossible.
    Keys are message ids; admitting a key twice keeps the first slot. For one event loop.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[str, int] = {}
        self._waiting: OrderedDict[str, tuple[int, asyncio.Future[None]]] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Bytes of all admitted uploads."""
        return sum(self._held.values())

    @property
    def waiting(self) -> int:
        """How many uploads wait unread."""
        return len(self._waiting)

    async def admit(self, key: str, n_bytes: int) -> None:
        """Return once ``key`` may upload ``n_bytes``."""
        if key in self._held:
            return
        if key in self._waiting:
            await asyncio.shield(self._waiting[key][1])
            return
        if not self._waiting and self._fits(n_bytes):
            self._held[key] = n_bytes
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[key] = (n_bytes, future)
        try:
            await future
        except asyncio.CancelledError:
            if self._waiting.pop(key, None) is None:
                self.release(key)
            self._promote()
            raise

    def release(self, key: str) -> None:
        """Give the slot of ``key`` to whoever waits; unknown keys are ignored."""
        entry = self._waiting.pop(key, None)
        if entry is not None and not entry[1].done():
            entry[1].cancel()
        self._held.pop(key, None)
        self._promote()

    def _fits(self, n_bytes: int) -> bool:
        return not self._held or self.held_bytes + n_bytes <= self._max_bytes

    def _promote(self) -> None:
        while self._waiting:
            key, (n_bytes, future) = next(iter(self._waiting.items()))
            if not self._fits(n_bytes):
                return
            del self._waiting[key]
            if not future.done():
                self._held[key] = n_bytes
                future.set_result(None)
