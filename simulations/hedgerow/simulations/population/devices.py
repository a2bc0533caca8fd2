"""What kind of board each device is: the scenario's classes, in proportion to their shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.scenario.spec import DeviceClassSpec

Ints = npt.NDArray[np.int64]
MIB = 1024 * 1024


def draw_classes(classes: Sequence[DeviceClassSpec], devices: int, seed: int) -> Ints:
    """Return each device's class, int64 ``(devices,)``: numbers by the largest remainder, places at random."""
    share = np.array([one.share for one in classes], np.float64)
    exact = share / share.sum() * devices
    counts = np.floor(exact).astype(np.int64)
    rest = devices - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1
    made = np.repeat(np.arange(len(classes)), counts)
    return np.asarray(made[np.random.default_rng([seed, 41]).permutation(devices)])


def needed_mib(n_parameters: int, training: TrainingSpec) -> float:
    """Return what training takes, MiB: model, gradient and update, and what the optimizer keeps, in float32."""
    kept = 2 if training.optimizer == "adam" else int(training.momentum > 0)
    return (3 + kept) * 4 * n_parameters / MIB
