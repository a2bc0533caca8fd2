"""Which queued jobs may start: first in, first out, and never two on one device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Waiting(NamedTuple):
    """A queued job and the devices that it may use."""

    job_id: str
    devices: frozenset[str]


def startable(queue: Sequence[Waiting], busy: Iterable[AbstractSet[str]]) -> list[str]:
    """Return the jobs to start now, in order.

    A job starts when no running job and no earlier one in the queue shares a device with it, so that a later job never
    overtakes an earlier one that it would delay.
    """
    taken: set[str] = set().union(*busy)
    chosen = []
    for waiting in queue:
        if taken.isdisjoint(waiting.devices):
            chosen.append(waiting.job_id)
        taken |= waiting.devices
    return chosen
