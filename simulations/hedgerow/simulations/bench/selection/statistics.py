"""What the charts see: models trained federatedly on the fit rows, and the residuals' statistics on every replay.

The same arithmetic as ``hedgerow.shared.scoring``, over many replays at once and in float32; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from hedgerow.models.export.vector import load_vector
from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import Scorer
from hedgerow.shared.scoring.chart import DISPERSION_FLOOR, memory_weights
from hedgerow.simulations.bench.federation import federate
from hedgerow.simulations.bench.selection.faults import draw, plant
from hedgerow.simulations.bench.selection.replays import Doubles, Family

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

DRIFTS: Final = (1.0, 1.5)
SEEDS: Final = (1, 2)
FAULTS: Final = 12
"""Planted faults a replay; the models of ``SEEDS`` judge them by turns."""


@dataclass(frozen=True)
class Planted:
    """A family with its faults: ``rest`` is ``(n, seeds, drifts, 1 + faults a seed, rows, c)``, without fault first;
    ``labels`` ``(n, seeds, 1 + faults a seed, rows)``. The same faults for every candidate.
    """

    family: Family
    rest: Doubles
    labels: Flags


@dataclass(frozen=True)
class Statistics:
    """Smoothed residual and dispersion per channel: ``fit`` ``(n, seeds, windows, 2c)``, ``rest`` ``(n, seeds, drifts,
    1 + faults, rows, 2c)``; ``drifting`` ``(n, c)`` marks channels that the drift mask leaves out.
    """

    fit: Doubles
    rest: Floats
    drifting: Flags


def planted(family: Family, among: Sequence[int], faults: int = FAULTS) -> Planted:
    """Return the family's replays with ``faults`` faults each in channels ``among``, at every drift."""
    n, rows, channels = family.rest.shape
    each = 1 + faults // len(SEEDS)
    rest = np.empty((n, len(SEEDS), len(DRIFTS), each, rows, channels))
    labels = np.zeros((n, len(SEEDS), each, rows), np.bool_)
    for d, times in enumerate(DRIFTS):
        rest[:, :, d] = family.drifting(times)[:, None, None]
    for i, s, k in np.ndindex(n, len(SEEDS), each - 1):
        fault = draw(np.random.default_rng((i, s, k)), rows, among)
        labels[i, s, k + 1] = fault.labels(rows)
        for d in range(len(DRIFTS)):
            rest[i, s, d, k + 1] = plant(fault, rest[i, s, d, 0], family.fit[i], family.fit[i].std(axis=0))
    return Planted(family, rest, labels)


def statistics(
    recipe: Recipe, job: Job, data: Planted, profile: DeviceProfile, memories: Sequence[float]
) -> dict[float, Statistics]:
    """Return the statistics of ``job``'s models, trained on the family's fit rows, per memory in rows."""
    family = data.family
    length = recipe.input_spec(job.parameters).shape[0]
    rule = recipe.scoring(job.parameters)
    if rule is None:
        raise ConfigError(f"recipe {recipe.name!r} gives no anomaly scores")
    scorer = Scorer(rule, profile)
    fits = [_windows(rows, length) for rows in family.fit]
    scalings = [scorer.fit_scaling(windows) for windows in fits]
    sets = [recipe.training_set(w, [None] * len(w), profile, job.parameters, False) for w in fits]
    modules = []
    for seed in SEEDS:
        module = recipe.build(job.parameters)
        load_vector(module, federate(recipe, msgspec.structs.replace(job, seed=seed), sets).model)
        modules.append(module.eval())
    weights = [memory_weights(length, memory) for memory in memories]
    n, _, channels = family.fit.shape
    found = [
        Statistics(
            np.empty((n, len(SEEDS), len(fits[0]), 2 * channels)),
            np.empty((*data.rest.shape[:-1], 2 * channels), np.float32),
            np.array([made.drifting > 0 for made in scalings]),
        )
        for _ in memories
    ]
    for i, s in np.ndindex(n, len(SEEDS)):
        before = family.fit[i, len(family.fit[i]) - length + 1 :]
        replays = data.rest[i, s]
        whole = np.concatenate(
            [np.broadcast_to(before, (*replays.shape[:2], *before.shape)), replays], axis=2
        )
        windows = np.lib.stride_tricks.sliding_window_view(whole, length, axis=2).swapaxes(-1, -2)
        for part, raw in (("fit", fits[i]), ("rest", windows.reshape(-1, length, channels))):
            x = scorer.transform_with(raw, scalings[i])
            with torch.no_grad():
                output = modules[s](torch.from_numpy(x)).numpy()
            residual = ((raw - scalings[i].centre) / scalings[i].scale - output).astype(np.float32)
            for one, weight in zip(found, weights, strict=True):
                target = getattr(one, part)[i, s]
                target[...] = _charted(residual, weight).reshape(target.shape)
    return dict(zip(memories, found, strict=True))


def _windows(rows: Doubles, length: int) -> Doubles:
    view = np.lib.stride_tricks.sliding_window_view(rows, length, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1))


def _charted(residual: Floats, weights: Doubles) -> Floats:
    """Return smoothed residual and its dispersion of windows ``(n, rows, c)``, ``(n, 2c)``."""
    light = weights.astype(np.float32)
    mean = np.einsum("nrc,r->nc", residual, light)
    square = np.einsum("nrc,nrc,r->nc", residual, residual, light)
    spread = 0.5 * np.log(np.maximum(square - mean**2, 0) + np.float32(DISPERSION_FLOOR**2))
    return np.concatenate([mean, spread], axis=1)
