"""How long a round waits, and for whom: a pure rule over who is online and since when not.

A trainer that is connected and owes an answer is waited for until the round's deadline. One that died after it was
asked is not waited for: its answer cannot come. One that was offline when the round began is waited for until it has been
away for ``rejoin_wait_s``, so that a trainer which restarts costs its device one round even where rounds take
milliseconds, while a device that is gone for good costs the fleet that time once, not a deadline in every round.

None of this looks at how many replies came.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet


class Presence:
    """Remembers over a job's rounds since when each device has been away (monotonic seconds)."""

    def __init__(self, now: float) -> None:
        self._begun = now
        self._away_since: dict[str, float] = {}
        self._online: frozenset[str] = frozenset()

    def note(self, online: frozenset[str], now: float) -> None:
        """Take notice of who is online now."""
        if online == self._online:
            return
        for device in self._online - online:
            self._away_since[device] = now
        for device in online:
            self._away_since.pop(device, None)
        self._online = online

    def away_since(self, device: str) -> float | None:
        """Return since when ``device`` is away (the job's begin if it never came), None if it is online."""
        if device in self._online:
            return None
        return self._away_since.get(device, self._begun)


def wait_until(
    owing: AbstractSet[str],
    seen_in_round: AbstractSet[str],
    presence: Presence,
    *,
    now: float,
    deadline: float,
    rejoin_wait_s: float,
) -> float | None:
    """Return until when (monotonic seconds) the round waits next, or None if nothing is worth waiting for.

    ``owing`` are the cohort's devices without an answer, ``seen_in_round`` those that were online in this round.
    """
    if not owing or now >= deadline:
        return None
    latest = now
    for device in owing:
        since = presence.away_since(device)
        if since is None:
            return deadline
        if device not in seen_in_round:
            latest = max(latest, min(deadline, since + rejoin_wait_s))
    return latest if latest > now else None
