"""What passes between the engine and the process that runs Flower: plain values, pickled, on one machine between our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.models.recipe import Recipe
from hedgerow.simulations.engine.protocol import Doubles, Outcome, Task, Vector
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.scenario.spec import Scenario

REFERENCE: Final = {"kernel": "reference:1", "device": "cpu"}
"""The choices of this engine: the device's own trainers, one device at a time, to which all engines are held."""


@dataclass(frozen=True)
class World:
    """What every actor needs to train any device. Ray holds its arrays once a machine, and actors read them in place."""

    scenario: Scenario
    recipe: Recipe
    population: Population
    state_folder: Path


class Start(NamedTuple):
    """Start Flower with so many ``workers`` (actors of one CPU) and virtual ``nodes``. Ray's files go to ``folder``."""

    world: World
    workers: int
    nodes: int
    folder: Path


class Asked(NamedTuple):
    """One batch. ``exponent`` is of the lattice on which updates are added (see ``lean.lattice``)."""

    models: dict[int, Vector]
    tasks: tuple[Task, ...]
    exponent: int
    each: bool
    control: Vector | None


class Ready(NamedTuple):
    """Flower runs, and its virtual nodes are there."""


class Done(NamedTuple):
    """A batch is trained: the sum on the lattice, int64 ``(n,)``, outcomes in the order of the tasks, single updates if asked
    for, by device, and the sum of control changes with SCAFFOLD.
    """

    total: npt.NDArray[np.int64]
    outcomes: tuple[Outcome, ...]
    updates: dict[int, Vector]
    control: Doubles | None


class Failed(NamedTuple):
    """The batch, or the start, failed: ``raised`` if a device's training raised, which would happen again, ``lost`` if an actor
    or Ray itself is gone.
    """

    kind: Literal["raised", "lost"]
    reason: str


Reply = Ready | Done | Failed
