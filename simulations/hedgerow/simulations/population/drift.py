"""How devices' inputs differ, and how they change over rounds; acts on examples as the model takes them.

Between devices: x → x · (1 + scale · g) + shift · s · h, with g and h standard normal per device and element, s the
element's standard deviation over all devices. Over time: a share of the devices moves by ``shift`` · s along one direction,
signs drawn once for all of them (a season, a new firmware), or renames its classes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.simulations.population.values import FlatData, Floats, Ints, Phase
from hedgerow.simulations.scenario.spec import DriftSpec

MAX_STEPS: Final = 8
"""A slow drift moves in at most so many equal steps: each is one more copy of the data."""
Doubles = npt.NDArray[np.float64]


def differ(data: FlatData, spec: DriftSpec, seed: int, spread: Floats) -> FlatData:
    """Return ``data`` with each device's own gain and offset; the same for train and test of one ``seed``.

    ``spread`` is the standard deviation of each element, float32 ``(*input)``.
    """
    if not spec.feature_scale and not spec.feature_shift:
        return data
    x = data.x.copy()
    for device in range(len(data.offsets) - 1):
        rng = np.random.default_rng([seed, 51, device])
        gain = (1 + spec.feature_scale * rng.standard_normal(spread.shape)).astype(np.float32)
        offset = (spec.feature_shift * rng.standard_normal(spread.shape) * spread).astype(np.float32)
        part = x[data.offsets[device] : data.offsets[device + 1]]
        part *= gain
        part += offset
    return FlatData(x, data.y, data.offsets)


def spread_of(data: FlatData) -> Floats:
    """Return the standard deviation of each element over all examples, float32 ``(*input)``."""
    if not len(data.x):
        return np.zeros(data.x.shape[1:], np.float32)
    return np.asarray(data.x.std(axis=0, dtype=np.float64), np.float32)


def phases_of(data: FlatData, spec: DriftSpec, seed: int, spread: Floats, classes: int) -> tuple[Phase, ...]:
    """Return what devices hold from which round on: ``data`` at first, then step by step the drifted one."""
    if spec.from_round is None:
        return (Phase(1, data),)
    steps = min(spec.over_rounds, MAX_STEPS)
    found = [] if spec.from_round == 1 else [Phase(1, data)]
    for step in range(steps):
        first = spec.from_round + step * spec.over_rounds // steps
        found.append(Phase(first, _moved(data, spec, seed, spread, classes, (step + 1) / steps)))
    return tuple(found)


def drifting(devices: int, share: float, seed: int) -> Ints:
    """Return the devices that move, int64, in the order in which their classes are renamed."""
    order = np.random.default_rng([seed, 52]).permutation(devices)
    return np.asarray(order[: round(share * devices)])


def _moved(
    data: FlatData, spec: DriftSpec, seed: int, spread: Floats, classes: int, level: float
) -> FlatData:
    who = drifting(len(data.offsets) - 1, spec.devices, seed)
    signs = np.random.default_rng([seed, 53]).choice([-1.0, 1.0], spread.shape)
    offset = (level * spec.shift * signs * spread).astype(np.float32)
    x, y = data.x, data.y
    if spec.shift:
        x = x.copy()
        for device in who:
            x[data.offsets[device] : data.offsets[device + 1]] += offset
    if spec.rotate_labels and y is not None:
        y = y.copy()
        for device in who[: round(level * len(who))]:
            part = y[data.offsets[device] : data.offsets[device + 1]]
            part[:] = (part + 1) % classes
    return FlatData(x, y, data.offsets)
