"""What devices have stored in a round: their phase of the population, labels turned round where a byzantine device does so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hedgerow.simulations.population.pool import Labelled
from hedgerow.simulations.population.raw import RawPopulation
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import Scenario


class Stored(NamedTuple):
    """Each device's samples. ``key`` is equal for equal contents: the phase's first round, and whether labels are flipped."""

    key: tuple[int, bool]
    devices: tuple[Labelled, ...]

    def differs(self, before: Stored) -> list[int]:
        """Return the devices that have something else than ``before``."""
        pairs = zip(before.devices, self.devices, strict=True)
        return [device for device, (old, new) in enumerate(pairs) if not _same(old, new)]


def stored_in(raw: RawPopulation, scenario: Scenario, world: World, round: int) -> Stored:
    """Return what devices have stored in ``round``, counted from 1."""
    first = max((p.first_round for p in raw.phases if p.first_round <= round), default=1)
    spec = scenario.faults.byzantine
    flipped = spec is not None and spec.kind == "label-flip" and round >= spec.from_round
    devices = raw.at(round)
    if flipped:
        devices = tuple(
            _flipped(one, raw.classes) if bool(world.byzantine[device]) else one
            for device, one in enumerate(devices)
        )
    return Stored((first, flipped), devices)


def _flipped(data: Labelled, classes: int) -> Labelled:
    return data if data.labels is None else Labelled(data.samples, classes - 1 - data.labels)


def _same(old: Labelled, new: Labelled) -> bool:
    if old.labels is None or new.labels is None:
        labels = old.labels is new.labels
    else:
        labels = np.array_equal(old.labels, new.labels)
    return labels and np.array_equal(old.samples, new.samples)
