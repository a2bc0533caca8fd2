"""Synthetic vectors: classes bent through a fixed random network, so that no plane parts them cleanly.

Each class is a cloud about an own centre in a few hidden dimensions; a fixed random layer with tanh spreads it over all
inputs, and noise is added. Values lie in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

TASK_SEED: Final = 64
HIDDEN: Final = 12
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VectorKind:
    """Shape and difficulty. ``spread`` is a class's standard deviation, its centre's being 1; ``noise`` that of an input."""

    inputs: int = 64
    classes: int = 10
    spread: float = 0.9
    noise: float = 0.05


@dataclass(frozen=True)
class Vectors:
    """``values`` float32 ``(n, inputs)`` in 0..1; ``labels`` and ``groups`` int64 ``(n,)``."""

    values: Floats
    labels: Ints
    groups: Ints


def make_vectors(kind: VectorKind, samples: int, seed: int, groups: int = 1) -> Vectors:
    """Return ``samples`` vectors of uniformly drawn classes and groups; the task is the same for every ``seed``.

    Each class has two clouds. A group moves all its vectors by an own hidden offset (half the spread).
    """
    task = np.random.default_rng([TASK_SEED, kind.inputs, kind.classes])
    centres = task.standard_normal((kind.classes, 2, HIDDEN))
    weights = task.standard_normal((HIDDEN, kind.inputs)) / np.sqrt(HIDDEN)
    rng = np.random.default_rng([seed, 3])
    labels, group = rng.integers(kind.classes, size=samples), rng.integers(groups, size=samples)
    offsets = rng.standard_normal((groups, HIDDEN)) * (kind.spread / 2 if groups > 1 else 0.0)
    hidden = centres[labels, rng.integers(2, size=samples)] + offsets[group]
    hidden += kind.spread * rng.standard_normal((samples, HIDDEN))
    values = 0.5 + 0.4 * np.tanh(hidden @ weights) + kind.noise * rng.standard_normal((samples, kind.inputs))
    return Vectors(np.clip(values, 0, 1).astype(np.float32), labels, group)
