"""All examples of a source before they are divided, and what a source is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hedgerow.models.recipe import Array, Parameters, Recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.specs import TensorSpec

Ints = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Request:
    """What a source reads for. ``path`` is there where the source reads files; ``options`` is the source's own struct,
    checked. ``where`` names the scenario in messages.
    """

    recipe: Recipe
    parameters: Parameters
    devices: int
    seed: int
    where: str
    options: Any
    path: Path | None = None
    profile: DeviceProfile | None = None

    @property
    def spec(self) -> TensorSpec:
        """Return what the recipe's devices store."""
        return self.recipe.input_spec(self.parameters)

    @property
    def classes(self) -> int:
        """Return how many classes the recipe has, 0 where it has none."""
        return len(self.recipe.labels(self.parameters))

    @property
    def folder(self) -> Path:
        """Return the path that files are read from. Raises ConfigError without one."""
        if self.path is None:
            raise ConfigError(f"{self.where}: population.path: expected a path, this source reads files")
        return self.path

    def wrong(self, field: str, why: str) -> ConfigError:
        """Return the error for a field below ``population``."""
        return ConfigError(f"{self.where}: population.{field}: {why}")


@dataclass(frozen=True)
class Labelled:
    """Raw samples ``(n, *spec.shape)`` as the recipe's devices store them, and labels int64 ``(n,)`` or None."""

    samples: Array
    labels: Ints | None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, chosen: Ints | Booleans) -> Labelled:
        """Return some of them."""
        return Labelled(self.samples[chosen], None if self.labels is None else self.labels[chosen])


@dataclass(frozen=True)
class Pool:
    """A source's examples. ``groups`` int64 ``(n,)`` indexes ``group_names``; -1 everywhere without groups.

    ``held_out`` is for the central evaluation and is on no device; None means the recipe's own public set. With ``ordered``
    examples of a group stand in order of time. ``profile`` is given by sources that make one.
    """

    examples: Labelled
    groups: Ints
    group_names: tuple[str, ...] = ()
    held_out: Labelled | None = None
    ordered: bool = False
    profile: DeviceProfile | None = None


def ungrouped(samples: Array, labels: Ints | None, held_out: Labelled | None = None) -> Pool:
    """Return a pool without groups."""
    return Pool(Labelled(samples, labels), np.full(len(samples), -1, np.int64), held_out=held_out)


def split_off(examples: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Return (rest, held out): ``share`` of the examples at random, at least one on either side, order kept.

    Raises ValueError for fewer than two examples.
    """
    n = len(examples)
    if n < 2:
        raise ValueError(f"{n} examples cannot be parted")
    count = min(n - 1, max(1, round(share * n)))
    held = np.zeros(n, np.bool_)
    held[np.random.default_rng([seed, 11]).permutation(n)[:count]] = True
    return examples.take(~held), examples.take(held)
