"""``quantity``: the same mixture everywhere, sizes by a Dirichlet draw."""

from __future__ import annotations

import numpy as np

from hedgerow.simulations.population.partition.values import Division, Ints, proportions, shares_of


def owners(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners: the smaller ``alpha``, the fewer devices hold most of everything."""
    counts = shares_of(proportions(rng, division.spec.alpha, division.devices), division.n)
    owner = np.empty(division.n, np.int64)
    owner[rng.permutation(division.n)] = np.repeat(np.arange(division.devices), counts)
    return owner
