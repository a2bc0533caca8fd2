"""What a partition is asked, and the error that names the field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.scenario.spec import PartitionSpec

Ints = npt.NDArray[np.int64]


class Division(NamedTuple):
    """``n`` examples for ``devices``. ``labels`` int64 ``(n,)`` or None, ``groups`` int64 ``(n,)`` or None.

    A kind answers with owners, int64 ``(n,)``: each example's device, -1 for nobody's.
    """

    n: int
    devices: int
    labels: Ints | None
    groups: Ints | None
    spec: PartitionSpec
    where: str

    def wrong(self, field: str, why: str) -> ConfigError:
        """Return the error for a field of the population."""
        return ConfigError(f"{self.where}: population.{field}: {why}")

    def needed_labels(self) -> Ints:
        """Return the labels. Raises ConfigError without."""
        if self.labels is None:
            raise self.wrong(
                "partition.kind", f"{self.spec.kind!r} divides by label, the source has none; use 'iid'"
            )
        return self.labels

    def needed_groups(self) -> Ints:
        """Return the groups. Raises ConfigError without."""
        if self.groups is None:
            raise self.wrong(
                "partition.kind", f"{self.spec.kind!r} divides by group, the source has none; use 'iid'"
            )
        return self.groups


def shares_of(weights: npt.NDArray[np.float64], count: int) -> Ints:
    """Return whole shares of ``count``, int64 ``(k,)`` summing to it: boundaries of the running sum, rounded down."""
    cuts = np.floor(np.cumsum(weights) / weights.sum() * count + 1e-9).astype(np.int64)
    cuts[-1] = count
    return np.asarray(np.diff(np.minimum(cuts, count), prepend=0), np.int64)


def proportions(rng: np.random.Generator, alpha: float, k: int) -> npt.NDArray[np.float64]:
    """Return one symmetric Dirichlet draw, float64 ``(k,)``, also for an ``alpha`` so small that gammas underflow.

    Logarithms of gamma draws (Marsaglia and Tsang 2000, section 8: G(α) = G(α + 1) · U^(1/α)) keep the ratios.
    """
    log = np.log(rng.gamma(alpha + 1.0, size=k)) + np.log1p(-rng.random(k)) / alpha
    weights: npt.NDArray[np.float64] = np.exp(log - log.max())
    weights /= weights.sum()
    return weights
