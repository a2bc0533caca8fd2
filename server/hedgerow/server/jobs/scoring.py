"""The server's score of each round's model, beside the rounds and never in their way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hedgerow.server.rounds.models import model_bytes
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.packing import Vector

Score = Callable[[bytes], Awaitable[dict[str, float]]]
Keep = Callable[[int, dict[str, float]], Awaitable[None]]
_log = logging.getLogger(__name__)


class RoundScorer:
    """Scores the newest model it was given, one at a time: where rounds are faster than scores, rounds are skipped.

    The last model offered is always scored. ``keep(round, scores)`` stores a result.
    """

    def __init__(self, score: Score, keep: Keep) -> None:
        self._score = score
        self._keep = keep
        self._next: tuple[int, Vector] | None = None
        self._task: asyncio.Task[None] | None = None

    def offer(self, round: int, model: Vector) -> None:
        """Take a model to score, in place of one that still waits."""
        self._next = (round, model)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="hedgerow-score")

    async def settle(self) -> None:
        """Return when everything that was offered is scored or replaced."""
        if self._task is not None:
            await self._task

    async def stop(self) -> None:
        """Give up what is not scored yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._next is not None:
            (round, model), self._next = self._next, None
            try:
                await self._keep(round, await self._score(bytes(model_bytes(model))))
            except HedgerowError as error:
                _log.warning("round %d could not be scored: %s", round, error)
