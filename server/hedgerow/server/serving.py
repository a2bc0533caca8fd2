"""A uvicorn server as one part of a larger process: that process owns the signals, and hears when it listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn

from hedgerow.shared.errors import TransportError


class EmbeddedServer(uvicorn.Server):
    """Start with ``listen``, stop with ``close``; never touches signal handlers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
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

    async def listen(self, name: str) -> int:
        """Listen and return the port. Raises TransportError if the address cannot be had."""
        task = asyncio.create_task(self.serve(), name=name)
        ready = asyncio.create_task(self._ready.wait(), name=f"{name}.ready")
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self.started:
            with contextlib.suppress(SystemExit):
                await task
            raise TransportError(
                f"{name}: cannot listen on {self.config.host}:{self.config.port}; is it in use?"
            )
        self._task = task
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop accepting, let running requests end within the configured deadline, then cut them."""
        self.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None
