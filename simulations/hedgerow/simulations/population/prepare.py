"""From a device's raw samples to the examples that its trainer would make of them, all devices in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hedgerow.models.recipe import PublicSet, TrainingSet
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.simulations.population.pool import Ints, Labelled, Request
from hedgerow.simulations.population.values import FlatData

_NO_INDEX = np.zeros(0, np.int64)


def flat_data(examples: Labelled, parts: Sequence[Ints], request: Request, private: bool) -> FlatData:
    """Return what the recipe's ``training_set`` makes of each device's samples, given by index.

    Raises ConfigError if a device's samples give no example at all.
    """
    made = [
        _device_set(examples.take(part), device, request, private) if len(part) else None
        for device, part in enumerate(parts)
    ]
    some = next((one for one in made if one is not None), None)
    if some is None:
        raise request.wrong("devices", "no device has an example")
    counts = [0 if one is None else len(one.x) for one in made]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    x = np.empty((int(offsets[-1]), *some.x.shape[1:]), np.float32)
    y = None if some.y is None else np.empty(len(x), np.int64)
    for device, one in enumerate(made):
        if one is not None:
            part = slice(offsets[device], offsets[device + 1])
            x[part] = one.x
            if y is not None and one.y is not None:
                y[part] = one.y
            made[device] = None
    return FlatData(x, y, offsets)


def _device_set(examples: Labelled, device: int, request: Request, private: bool) -> TrainingSet:
    labels = [None] * len(examples) if examples.labels is None else examples.labels.tolist()
    try:
        return request.recipe.training_set(
            examples.samples, labels, request.profile, request.parameters, private
        )
    except (ContentError, ConfigError) as error:
        raise ConfigError(f"{request.where}: population: device {device}: {error}") from error


def held_out_set(held: Labelled, request: Request) -> PublicSet:
    """Return a source's held-out examples as the recipe's ``score`` takes them; none is set aside for calibration.

    An anomaly recipe trains on what is labelled normal alone, but is judged on all: its windows are transformed without
    labels, which come back as ``y``.
    """
    blind = request.recipe.task == "anomaly"
    made = _device_set(Labelled(held.samples, None) if blind else held, -1, request, False)
    y = held.labels if blind else made.y
    return PublicSet(made.x, y, _NO_INDEX, _NO_INDEX)


def part_off(parts: Sequence[Ints], share: float, seed: int, ordered: bool) -> tuple[list[Ints], list[Ints]]:
    """Return (train, test) of each device: ``share`` of its samples, the latest where they are ordered, else at random.

    A device always keeps one to train on.
    """
    train, test = [], []
    for device, part in enumerate(parts):
        count = min(round(share * len(part)), max(0, len(part) - 1))
        chosen = part
        if not ordered:
            chosen = part[np.random.default_rng([seed, 61, device]).permutation(len(part))]
        train.append(np.sort(chosen[: len(part) - count]))
        test.append(np.sort(chosen[len(part) - count :]))
    return train, test
