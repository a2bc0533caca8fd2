"""A uvicorn server as one part of a larger process: that process owns the signals, and hears when it listens."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from hedgerow.shared.errors import TransportError


class EmbeddedServer(uvicorn.Server):
    """Start with ``listen``, stop with ``close``; never touches signal handlers.

    ``on_drain`` is called on the loop while stopping, once no connection takes another request: what ends long polls
    and streams belongs there, since a client that is answered earlier would only ask again.
    """

    def __init__(self, config: uvicorn.Config, on_drain: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._on_drain = on_drain
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and tell."""
        try:
            await super().startup(sockets)
        finally:
            self._ready.set()

    async def shutdown(self, sockets: Any = None) -> None:
        """Close what is idle, end what waits, give the rest the configured time."""
        if self._on_drain is not None:
            # uvicorn marks all connections as ending before it first waits; this runs right then.
            asyncio.get_running_loop().call_soon(self._on_drain)
        await super().shutdown(sockets)

    async def listen(self, name: str) -> int:
        """Listen and return the port. Raises TransportError if the address cannot be had."""
        # Bound here, because uvicorn ends the whole process when an address is taken.
        listener = _bind(name, self.config.host, self.config.port, self.config.backlog)
        port = int(listener.getsockname()[1])
        task = asyncio.create_task(self.serve([listener]), name=f"hedgerow-{name.replace(' ', '-')}")
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self.started:
            listener.close()
            await task
            raise TransportError(f"{name}: ended before it listened on {self.config.host}:{port}")
        self._task = task
        return port

    async def close(self) -> None:
        """Stop accepting, let running requests end within the configured deadline, then cut them."""
        self.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None


def _bind(name: str, host: str, port: int, backlog: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise TransportError(
            f"{name}: cannot listen on {host}:{port}: {error.strerror or error}; is another server running there?"
        ) from error
    listener.setblocking(False)
    return listener
