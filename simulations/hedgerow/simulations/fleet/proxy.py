"""The network between devices and their server: one TCP proxy a device, which delays, breaks and cuts.

Bytes pass untouched, so that TLS is between agent and server as ever. Loss on TCP is seen by programs as connections
that break: with probability ``loss`` one breaks within each stretch of ``STRETCH`` chunks, its first included.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

CHUNK_BYTES: Final = 16 * 1024
STRETCH: Final = 32
_LOOPBACK: Final = "127.0.0.1"
_CALL_S: Final = 10.0
T = TypeVar("T")


class Weather(NamedTuple):
    """What the network does to a connection: ``loss`` in [0, 1), ``delay_ms`` in each direction; ``seed`` draws breaks."""

    loss: float = 0.0
    delay_ms: float = 0.0
    seed: int = 0


def break_at(weather: Weather, device: int, connection: int, stretch: int) -> int | None:
    """Return the chunk within a stretch at which a device's connection breaks, counted from 0; None if it holds."""
    drawn = np.random.default_rng((weather.seed, 91, device, connection, stretch)).random(2)
    return int(drawn[1] * STRETCH) if drawn[0] < weather.loss else None


class Network:
    """All proxies of a fleet, on an event loop in a thread of its own. ``target`` is the server's ``host:port``.

    The methods are for other threads.
    """

    def __init__(self, target: str, weather: Weather = Weather()) -> None:  # noqa: B008  # a frozen tuple
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._weather = weather
        self._proxies: dict[int, _Proxy] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hedgerow-network", daemon=True)
        self._thread.start()

    def address(self, device: int) -> str:
        """Return the ``host:port`` by which a device reaches the server, from now on listened to."""
        return self._call(self._listen(device))

    def cut(self, device: int) -> None:
        """Break all connections of a device and refuse new ones until ``heal``."""
        self._call(self._set(device, cut=True))

    def heal(self, device: int) -> None:
        """Let a device's connections pass again."""
        self._call(self._set(device, cut=False))

    def broken(self, device: int) -> int:
        """Return how many connections of a device were broken or refused so far."""
        return self._proxies[device].broken if device in self._proxies else 0

    def close(self) -> None:
        """Close everything. Idempotent."""
        if not self._thread.is_alive():
            return
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()

    async def _listen(self, device: int) -> str:
        if device not in self._proxies:
            self._proxies[device] = proxy = _Proxy(device, self._target, self._weather)
            await proxy.listen()
        return f"{_LOOPBACK}:{self._proxies[device].port}"

    async def _set(self, device: int, cut: bool) -> None:
        self._proxies[device].set(cut)

    async def _close(self) -> None:
        for proxy in self._proxies.values():
            await proxy.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)


class _Proxy:
    """One device's way to the server. Lives on the network's loop."""

    def __init__(self, device: int, target: tuple[str, int], weather: Weather) -> None:
        self.port = 0
        self.broken = 0
        self._device = device
        self._target = target
        self._weather = weather
        self._cut = False
        self._count = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, _LOOPBACK, 0, limit=2 * CHUNK_BYTES)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def set(self, cut: bool) -> None:
        """Cut the way, which breaks what is open and refuses the rest, or let through again."""
        self._cut = cut
        if cut:
            self.broken += len(self._open)
            for task in self._open:
                task.cancel()

    async def close(self) -> None:
        """End it with all its connections. Idempotent."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            self.broken += 1
            writer.transport.abort()
            return
        number, self._count = self._count, self._count + 1
        task = asyncio.current_task()
        if task is None:
            return
        self._open.add(task)
        try:
            await self._join(reader, writer, number)
        except asyncio.CancelledError:
            # Cut, or closing: the stream protocol would log a cancelled handler as an error.
            return
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target, limit=2 * CHUNK_BYTES)
        except OSError:
            return  # the server is down: the device's connection ends, as it would
        chunks = _Chunks(self._weather, self._device, number)
        try:
            tasks = [
                asyncio.ensure_future(_pass(reader, far_writer, chunks)),
                asyncio.ensure_future(_pass(far_reader, writer, chunks)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _ended(tasks)
            self.broken += chunks.broke
        finally:
            far_writer.transport.abort()


class _Chunks:
    """Counts a connection's chunks in both directions and says when it breaks."""

    def __init__(self, weather: Weather, device: int, connection: int) -> None:
        self.delay_s = weather.delay_ms / 1000
        self.broke = False
        self._key = (weather, device, connection)
        self._passed = 0
        self._at: int | None = None

    def breaks(self) -> bool:
        """Count one chunk and tell whether it is the one that is lost."""
        stretch, place = divmod(self._passed, STRETCH)
        if place == 0:
            self._at = break_at(*self._key, stretch)
        self._passed += 1
        self.broke = self.broke or place == self._at
        return self.broke


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunks: _Chunks) -> None:
    """Carry bytes one way until an end closes or the connection breaks; each chunk arrives ``delay_s`` after it was sent."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
    tasks = [
        asyncio.ensure_future(_take(reader, waiting, chunks)),
        asyncio.ensure_future(_deliver(waiting, writer)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _ended(tasks)


async def _take(
    reader: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]], chunks: _Chunks
) -> None:
    """Return when the connection breaks; after its end of file this waits for the last chunk to be delivered."""
    loop = asyncio.get_running_loop()
    while True:
        data = await reader.read(CHUNK_BYTES)
        if data and chunks.breaks():
            return
        await waiting.put((loop.time() + chunks.delay_s, data))
        if not data:
            await loop.create_future()


async def _deliver(waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await waiting.get()
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        if not data:
            return
        writer.write(data)
        await writer.drain()


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what still runs, and hear all errors: an end that went away is no news here."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
