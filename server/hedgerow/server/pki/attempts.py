"""Slows down guessing: a bucket of failures per source, refilled over time, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_SOURCES = 4096


class Attempts:
    """Counts failed attempts per source (an address, a device).

    A source may fail ``burst`` times at once and then once per ``refill_s``; successes are free, so that a whole
    fleet behind one address can join. Only the ``MAX_SOURCES`` latest offenders are remembered. Use it from one thread.
    """

    def __init__(self, burst: int, refill_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, source: str) -> float:
        """Return how long ``source`` must wait before it may try; 0 if it may try now."""
        return max(0.0, (self._level(source) - (self._burst - 1)) * self._refill_s)

    def failed(self, source: str) -> None:
        """Count one failure of ``source``."""
        self._spent[source] = (self._level(source) + 1.0, self._clock())
        self._spent.move_to_end(source)
        if len(self._spent) > MAX_SOURCES:
            self._spent.popitem(last=False)

    def _level(self, source: str) -> float:
        level, at = self._spent.get(source, (0.0, self._clock()))
        return max(0.0, level - (self._clock() - at) / self._refill_s)
