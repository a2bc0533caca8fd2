"""What devices store: raw samples and labels, so that real ones train on what simulated ones do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hedgerow.models.recipe import Array, Recipe
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.specs import TensorSpec
from hedgerow.simulations.population import drift
from hedgerow.simulations.population.build import divide
from hedgerow.simulations.population.pool import Ints, Labelled
from hedgerow.simulations.population.values import FlatData, Floats
from hedgerow.simulations.scenario.spec import DriftSpec, Scenario


class RawPhase(NamedTuple):
    """What each device has stored from round ``first_round`` on, one ``Labelled`` a device."""

    first_round: int
    devices: tuple[Labelled, ...]


class RawPopulation(NamedTuple):
    """All devices' training samples as they would be stored, of ``spec``; the newest last, as many as a job may take."""

    spec: TensorSpec
    profile: DeviceProfile | None
    classes: int
    phases: tuple[RawPhase, ...]

    def at(self, round: int) -> tuple[Labelled, ...]:
        """Return what devices have stored in ``round``, counted from 1."""
        begun = [phase for phase in self.phases if phase.first_round <= round]
        return (begun[-1] if begun else self.phases[0]).devices


def raw_population(scenario: Scenario, recipe: Recipe, base: Path) -> RawPopulation:
    """Return what ``build_population`` makes its examples of, before the recipe's transform.

    Drift has the same draws, in units of the raw sample; whole-number samples are rounded and clipped to their type, so
    that a gain on windows, whose transform takes an offset off first, is not exactly the simulated one.
    Raises as ``build_population``.
    """
    request, pool, train, _ = divide(scenario, recipe, base)
    newest = scenario.job.training.max_samples
    first = tuple(pool.examples.take(part[-newest:]) for part in train)
    phases = _phases(first, scenario.population.drift, scenario.seed, request.classes)
    return RawPopulation(request.spec, request.profile, request.classes, phases)


def _phases(devices: Sequence[Labelled], spec: DriftSpec, seed: int, classes: int) -> tuple[RawPhase, ...]:
    if not (spec.feature_scale or spec.feature_shift or spec.from_round):
        return (RawPhase(1, tuple(devices)),)
    flat = _flat(devices)
    spread = drift.spread_of(flat)
    own = drift.differ(flat, spec, seed, spread)
    kind = devices[0].samples.dtype
    return tuple(
        RawPhase(phase.first_round, _apart(phase.data, kind))
        for phase in drift.phases_of(own, spec, seed, spread, classes)
    )


def _flat(devices: Sequence[Labelled]) -> FlatData:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in devices])]).astype(np.int64)
    x: Floats = np.concatenate([one.samples for one in devices]).astype(np.float32)
    labels = [one.labels for one in devices if one.labels is not None]
    return FlatData(x, np.concatenate(labels) if labels else None, offsets)


def _apart(data: FlatData, kind: np.dtype[np.generic]) -> tuple[Labelled, ...]:
    found = []
    for device in range(len(data.offsets) - 1):
        x, y = data.of(device)
        found.append(Labelled(_as(x, kind), None if y is None else _copy(y)))
    return tuple(found)


def _as(x: Floats, kind: np.dtype[np.generic]) -> Array:
    if np.issubdtype(kind, np.integer):
        bounds = np.iinfo(kind.name)
        return np.clip(np.rint(x), bounds.min, bounds.max).astype(kind)
    return x.astype(kind)


def _copy(y: Ints) -> Ints:
    return y.copy()
