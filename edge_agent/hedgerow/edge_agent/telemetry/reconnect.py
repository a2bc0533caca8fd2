"""When to try a lost broker again, and in which version of MQTT. Pure: no clock, no socket."""

from __future__ import annotations

import random
from typing import Final, Literal

Version = Literal["5", "3.1.1"]
STEADY_S: Final = 5.0
UNSTEADY_AFTER: Final = 3


class Backoff:
    """Waits that double up to a bound, each drawn from its upper half so that a fleet does not return at once."""

    def __init__(
        self, first_s: float = 0.5, longest_s: float = 30.0, rng: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._next_s = first_s
        self._short = 0

    def ended(self, stood_s: float) -> None:
        """A session that the broker had accepted has ended; one that stood lets waiting start over."""
        if stood_s >= STEADY_S:
            self._next_s = self._first_s
            self._short = 0
        else:
            self._short += 1

    @property
    def unsteady(self) -> bool:
        """Whether the broker has kept ending sessions soon after it accepted them."""
        return self._short >= UNSTEADY_AFTER

    def wait_s(self, *, longest: bool = False) -> float:
        """Return how long to wait now; ``longest`` for refusals that will not pass by themselves."""
        whole = self._longest_s if longest else self._next_s
        self._next_s = min(2 * self._next_s, self._longest_s)
        return whole * (0.5 + 0.5 * self._rng.random())


class VersionChoice:
    """MQTT 5 first; a broker that takes the connection but never accepts the session is asked in the other version.

    A broker that cannot be reached at all says nothing about versions.
    """

    first: Version = "5"

    def __init__(self) -> None:
        self.version = self.first
        self._failures = 0

    def accepted(self) -> None:
        """The broker accepted a session in this version."""
        self._failures = 0

    def unanswered(self) -> None:
        """The connection opened, but ended or fell silent before the broker accepted, or it refused the version."""
        self.version = "3.1.1" if self.version == "5" else "5"
        self._failures += 1

    @property
    def answer_within_s(self) -> float:
        """How long to wait for the broker's acceptance; longer each time that both versions went unanswered."""
        return float(min(2 ** (1 + self._failures // 2), 32))
