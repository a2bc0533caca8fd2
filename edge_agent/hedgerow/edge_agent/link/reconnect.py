"""How long to wait before trying again: doubling, with jitter so that a fleet does not return all at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from hedgerow.edge_agent.link.tls import ClockError
from hedgerow.shared.errors import AuthError, HedgerowError


class Reconnect:
    """The state of one path to the server: is it up, since when not, how long to wait. Not thread-safe.

    The wait after the n-th failure in a row is drawn from ``[d/2, d]`` with d = ``first_s`` · 2^(n-1), at most
    ``longest_s``. Where the server refuses this device, d is ``refused_s`` at once: asking again soon is of no use.
    ``jitter`` returns numbers in [0, 1).
    """

    def __init__(
        self,
        *,
        first_s: float = 0.5,
        longest_s: float = 30.0,
        refused_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._refused_s = refused_s
        self._clock = clock
        self._jitter = jitter
        self.failures = 0
        self.down_since: float | None = None
        self.error: HedgerowError | None = None

    def succeeded(self) -> float | None:
        """Note that the server answered; return how long it had been out of reach, or None if it had not."""
        since, self.down_since = self.down_since, None
        self.failures, self.error = 0, None
        return None if since is None else self._clock() - since

    def failed(self, error: HedgerowError) -> float:
        """Note a failure and return the seconds to wait before the next try."""
        self.failures += 1
        self.error = error
        if self.down_since is None:
            self.down_since = self._clock()
        refused = isinstance(error, AuthError) and not isinstance(error, ClockError)
        # 2^40 times any wait is longer than longest_s; the bound keeps the power finite.
        doubled = self._first_s * 2.0 ** min(self.failures - 1, 40)
        ceiling = self._refused_s if refused else min(self._longest_s, doubled)
        return ceiling * (0.5 + 0.5 * self._jitter())
