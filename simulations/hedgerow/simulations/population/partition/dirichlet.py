"""``dirichlet``: each class divided over the devices by its own Dirichlet draw (Hsu, Qi and Brown 2019, section 3)."""

from __future__ import annotations

import numpy as np

from hedgerow.simulations.population.partition.values import Division, Ints, proportions, shares_of


def owners(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners: the smaller ``alpha``, the fewer devices hold most of a class."""
    labels = division.needed_labels()
    owner = np.empty(division.n, np.int64)
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        counts = shares_of(proportions(rng, division.spec.alpha, division.devices), len(mine))
        # Rounding down favours whoever comes late in the running sum: not always the same devices.
        turn = rng.permutation(division.devices)
        owner[mine] = np.repeat(turn, counts)
    return owner
