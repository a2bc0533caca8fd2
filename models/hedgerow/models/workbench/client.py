"""The server's side of the workbench: starts the child, asks, and starts another if it dies. Loads no torch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from hedgerow.models.workbench import frames
from hedgerow.models.workbench.messages import (
    DescribeRequest,
    Description,
    Failure,
    InitialRequest,
    Model,
    PackageRequest,
    PackageResult,
    Request,
    Response,
    ScoreRequest,
    Scores,
)
from hedgerow.shared import errors
from hedgerow.shared.errors import HedgerowError, TransportError

T = TypeVar("T")

_TAIL_LINES = 20
_STREAM_BYTES = 64 * 1024
_KINDS: dict[str, type[HedgerowError]] = {
    name: getattr(errors, name)
    for name in (
        "BudgetError",
        "ConfigError",
        "ContentError",
        "IntegrityError",
        "StorageError",
        "UnsupportedError",
    )
}


class Workbench:
    """One child process, started at the first request; requests are answered one after the other.

    If the child dies, or a request takes longer than ``timeout_s``, that request raises TransportError saying so, and
    the next one starts a new child. ``environment`` is added to this process's own.
    """

    def __init__(self, *, timeout_s: float = 300.0, environment: Mapping[str, str] | None = None) -> None:
        self._timeout_s = timeout_s
        self._environment = dict(environment or {})
        self._turn = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._listener: asyncio.Task[None] | None = None
        self._decoder = msgspec.msgpack.Decoder(Response)

    @property
    def pid(self) -> int | None:
        """Process id of the child, None where none runs."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def describe(self, recipe: str, parameters: dict[str, Any]) -> Description:
        """Return what a recipe is. Raises ConfigError if it is not installed or refuses the parameters."""
        return await self._ask(DescribeRequest(recipe, parameters), Description)

    async def initial(self, recipe: str, parameters: dict[str, Any], seed: int) -> bytes:
        """Return an untrained model, raw little-endian float32; the same for the same seed and installation."""
        return (await self._ask(InitialRequest(recipe, parameters, seed), Model)).data

    async def score(self, recipe: str, parameters: dict[str, Any], model: bytes) -> dict[str, float]:
        """Return a model's scores on the recipe's public set. Raises ContentError if the model does not fit."""
        return (await self._ask(ScoreRequest(recipe, parameters, model), Scores)).scores

    async def package(self, request: PackageRequest) -> PackageResult:
        """Return what became of a candidate: a bundle folder, or the gate's reasons to refuse it.

        Raises ContentError, UnsupportedError, StorageError as the packaging does.
        """
        return await self._ask(request, PackageResult)

    async def close(self, deadline_s: float = 5.0) -> None:
        """End the child: by closing its input, by force after ``deadline_s``."""
        async with self._turn:
            child, self._child = self._child, None
            if child is None:
                return
            if child.stdin is not None:
                child.stdin.close()
            try:
                await asyncio.wait_for(child.wait(), deadline_s)
            except TimeoutError:
                await _kill(child)
            await self._stop_listening()

    async def _ask(self, request: Request, kind: type[T]) -> T:
        data = msgspec.msgpack.encode(request)
        head = frames.header(len(data))
        async with self._turn:
            child = await self._running()
            try:
                answer = await asyncio.wait_for(self._exchange(child, head, data), self._timeout_s)
            except BaseException as error:
                # also when cancelled: an answer that nobody waits for would be taken for the next request's
                await self._drop(child)
                if isinstance(error, TimeoutError):
                    raise TransportError(
                        f"the workbench took longer than {self._timeout_s:g} s; ended"
                    ) from error
                if isinstance(error, (OSError, asyncio.IncompleteReadError)):
                    raise TransportError(self._died(child)) from error
                raise
        if isinstance(answer, Failure):
            raise _KINDS.get(answer.kind, HedgerowError)(answer.message)
        if not isinstance(answer, kind):
            raise HedgerowError(f"the workbench answered {type(answer).__name__} to {type(request).__name__}")
        return answer

    async def _exchange(self, child: asyncio.subprocess.Process, head: bytes, data: bytes) -> Response:
        if child.stdin is None or child.stdout is None:
            raise TransportError("the workbench has no pipes")
        child.stdin.write(head)
        child.stdin.write(data)
        await child.stdin.drain()
        length = frames.length_of(await child.stdout.readexactly(frames.HEADER.size))
        answer: Response = self._decoder.decode(await child.stdout.readexactly(length))
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is None:
            return self._child
        await self._stop_listening()
        self._tail.clear()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hedgerow.models.workbench",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_STREAM_BYTES,
            env={**os.environ, **self._environment},
        )
        self._child = child
        self._listener = asyncio.create_task(self._listen(child), name="hedgerow-workbench-stderr")
        return child

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        if child.stderr is None:
            return
        while data := await child.stderr.read(4096):
            self._tail.extend(data.decode("utf-8", "replace").splitlines())

    async def _drop(self, child: asyncio.subprocess.Process) -> None:
        self._child = None
        await _kill(child)
        await self._stop_listening()

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(listener, 1.0)

    def _died(self, child: asyncio.subprocess.Process) -> str:
        last = " | ".join(list(self._tail)[-3:])
        return f"the workbench process ended with status {child.returncode}; its last words: {last or 'none'}"


async def _kill(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()
