"""When to try again after the server was out of reach: exponential backoff with full jitter."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable


class Reconnect:
    """Counts failures in a row and waits between them; ``wait`` and ``draw`` are injected by tests.

    The n-th wait is drawn from ``[first_s, min(limit_s, first_s * 2**n)]``, so that a fleet does not come back as one.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.1,
        limit_s: float = 30.0,
        wait: Callable[[float], bool] | None = None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._draw = draw
        self.failures = 0

    def succeeded(self) -> None:
        """The server answered: the next failure waits briefly again."""
        self.failures = 0

    def next_delay_s(self) -> float:
        """Count a failure and return how long to wait."""
        ceiling = min(self._limit_s, self._first_s * 2 ** min(self.failures, 30))
        self.failures += 1
        return self._draw(self._first_s, max(self._first_s, ceiling))

    def pause(self, longest_s: float) -> bool:
        """Wait after a failure, at most ``longest_s``; returns False if stopped meanwhile."""
        delay_s = self.next_delay_s()
        return not self._wait(max(0.0, min(delay_s, longest_s)))

    def stop(self) -> None:
        """Wake whoever waits, for good."""
        self._stopped.set()
