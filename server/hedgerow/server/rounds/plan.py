"""Who takes part in a round: drawn once, written down, and reused after a restart."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable
from typing import Final

import msgspec

from hedgerow.shared.job import CohortSpec
from hedgerow.shared.privacy.noise import RandomStream, SystemRandom

_OS_RANDOM: Final = secrets.SystemRandom()


class Plan(msgspec.Struct, frozen=True):
    """One attempt at one round. Writing it is the ledger's reservation; only its release turns that into a charge.

    ``cohort`` is sorted, so that its order tells nothing. ``attempt`` counts from 1 and grows only in jobs without
    privacy, whose rounds may abort for want of a quorum.
    """

    job_id: str
    round: int
    attempt: int
    cohort: tuple[str, ...]


class Key(msgspec.Struct, frozen=True):
    """What everything in a round hangs on; a device counts once per key."""

    job_id: str
    round: int
    exchange: int
    device: str


def draw_cohort(
    spec: CohortSpec,
    registered: Iterable[str],
    rng: random.Random = _OS_RANDOM,
    coins: RandomStream | None = None,
) -> tuple[str, ...]:
    """Return the devices of one round, drawn over the *registered* ones, online or not.

    ``fixed`` draws without replacement by the operating system's generator: no seed of a job or a person decides, or
    could tell, who was drawn. ``poisson`` throws a coin per device, from the same source, and may draw nobody.
    ``rng`` and ``coins`` are for simulations that claim nothing.
    """
    devices = sorted(set(registered))
    if spec.rule == "poisson":
        drawn = (coins or SystemRandom()).poisson_batch(len(devices), spec.rate or 0.0)
        return tuple(devices[index] for index in drawn)
    if spec.rule == "all" or spec.size is None or spec.size >= len(devices):
        return tuple(devices)
    return tuple(sorted(rng.sample(devices, spec.size)))
