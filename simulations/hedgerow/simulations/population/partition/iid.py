"""``iid``: equal shares at random."""

from __future__ import annotations

import numpy as np

from hedgerow.simulations.population.partition.values import Division, Ints


def owners(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners such that counts differ by at most one."""
    owner = np.empty(division.n, np.int64)
    owner[rng.permutation(division.n)] = np.arange(division.n) % division.devices
    return owner
