"""A population as values: every device's examples in one array, ready for the recipe's loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hedgerow.models.recipe import PublicSet

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FlatData:
    """Examples of all devices one after the other, so that a device's are one slice and nothing is copied.

    ``x`` float32 ``(total, *input)``, C-contiguous; ``y`` int64 ``(total,)`` or None; ``offsets`` int64
    ``(devices + 1,)``: device ``d`` has ``x[offsets[d]:offsets[d + 1]]``.
    """

    x: Floats
    y: Ints | None
    offsets: Ints

    def count(self, device: int) -> int:
        """Return how many examples ``device`` has."""
        return int(self.offsets[device + 1] - self.offsets[device])

    def of(self, device: int) -> tuple[Floats, Ints | None]:
        """Return views of a device's ``x`` and ``y``."""
        part = slice(int(self.offsets[device]), int(self.offsets[device + 1]))
        return self.x[part], None if self.y is None else self.y[part]


@dataclass(frozen=True)
class Phase:
    """What devices train on from round ``first_round`` (counted from 1) until the next phase begins."""

    first_round: int
    data: FlatData


@dataclass(frozen=True)
class Population:
    """All devices. ``phases`` are in order, the first from round 1; counts are the same in all of them.

    ``held_out`` is what the recipe's ``score`` takes for the central evaluation. ``device_test`` holds each device's own
    held-out examples, or None. ``device_class`` int64 ``(devices,)`` indexes the scenario's classes, ``group`` int64
    ``(devices,)`` the ``group_names``. With drift, ``device_test_phases`` are those of the test examples, as ``phases``;
    ``device_test`` is their first.
    """

    phases: tuple[Phase, ...]
    held_out: PublicSet
    device_test: FlatData | None
    device_class: Ints
    group: Ints
    group_names: tuple[str, ...]
    device_test_phases: tuple[Phase, ...] = ()

    @property
    def devices(self) -> int:
        """Return how many devices there are."""
        return len(self.device_class)

    def group_name(self, device: int) -> str:
        """Return the name of a device's group, empty where groups have none."""
        return self.group_names[int(self.group[device])] if self.group_names else ""

    def at(self, round: int) -> FlatData:
        """Return the examples of ``round``, counted from 1."""
        return _at(self.phases, round)

    def test_at(self, round: int) -> FlatData | None:
        """Return the devices' held-out examples of ``round``, drifted as those that they train on."""
        return _at(self.device_test_phases, round) if self.device_test_phases else self.device_test


def _at(phases: tuple[Phase, ...], round: int) -> FlatData:
    found = phases[0]
    for phase in phases[1:]:
        if phase.first_round <= round:
            found = phase
    return found.data
