"""Populations of a few numbers, a loop over the device's own trainer to hold engines to, and batches to give them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from tests.support.tiny_recipe import WIDTH, TinyRecipe

from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import PublicSet, Recipe, TrainingSet
from hedgerow.models.recipes import digits
from hedgerow.shared.job import Job, PrivacySpec, StrategySpec, TrainingSpec
from hedgerow.simulations.engine.protocol import Answer, Batch, Task, Vector
from hedgerow.simulations.population.values import FlatData, Phase, Population
from hedgerow.simulations.scenario.spec import PopulationSpec, Scenario

DIGITS = digits.RECIPE
MARK = 0.6180339


def make_scenario(recipe: str, devices: int, **changes: Any) -> Scenario:
    """Return a scenario; ``changes`` are of the job."""
    job = Job("lean", recipe, PrivacySpec("none"), training=TrainingSpec(batch_size=4, learning_rate=0.05))
    job = msgspec.structs.replace(job, **{"seed": 7, **changes})
    return Scenario("lean", job, PopulationSpec(devices), seed=11)


def copied(answer: Answer) -> Answer:
    """Return an answer that outlives the engine's next one."""
    control = None if answer.control is None else answer.control.copy()
    return msgspec.structs.replace(answer, total=answer.total.copy(), control=control)


def strategy(name: str, **options: float) -> StrategySpec:
    """Return a strategy block."""
    return StrategySpec(name, options=options)


def flat(counts: Sequence[int], x: npt.NDArray[np.float32], y: npt.NDArray[np.int64] | None) -> FlatData:
    """Return ``x`` and ``y`` divided into so many examples a device."""
    return FlatData(x, y, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def tiny_population(counts: Sequence[int], *, test: Sequence[int] | None = None, seed: int = 0) -> Population:
    """Return devices with so many samples of the tiny recipe; its held-out set has 3 of them."""
    rng = np.random.default_rng(seed)

    def drawn(of: Sequence[int]) -> FlatData:
        return flat(of, rng.normal(size=(sum(of), WIDTH)).astype(np.float32), None)

    return _population(drawn(counts), None if test is None else drawn(test), drawn([3]).x, None)


def digits_population(counts: Sequence[int], test: Sequence[int] | None = None) -> Population:
    """Return devices with so many of the recipe's public digits: enough for arithmetic, no matter what they show."""
    public = DIGITS.public_set(DIGITS.check({}))
    assert public.y is not None
    taken = np.resize(np.arange(len(public.x)), sum(counts) + sum(test or ()))
    train, rest = taken[: sum(counts)], taken[sum(counts) :]
    data = flat(counts, public.x[train], public.y[train])
    tested = None if test is None else flat(test, public.x[rest], public.y[rest])
    return _population(data, tested, public.x, public.y, public)


def _population(
    data: FlatData,
    test: FlatData | None,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64] | None,
    held_out: PublicSet | None = None,
) -> Population:
    devices = len(data.offsets) - 1
    none = np.zeros(0, np.int64)
    zeros = np.zeros(devices, np.int64)
    return Population(
        (Phase(1, data),), held_out or PublicSet(x, y, none, none), test, zeros, zeros, ("all",)
    )


def tasks(devices: Sequence[int], round: int = 1, **fields: Any) -> list[Task]:
    """Return a task for each of ``devices``."""
    return [Task(device, round, **fields) for device in devices]


def batch(model: Vector, given: Sequence[Task], **fields: Any) -> Batch:
    """Return a batch of one model."""
    return Batch([model], list(given), **fields)


def plain_updates(
    recipe: Recipe,
    scenario: Scenario,
    population: Population,
    model: Vector,
    round: int,
    devices: Sequence[int],
) -> list[Vector]:
    """Return the updates of ``devices`` by the device's own trainer, one after another."""
    updates = []
    for device in devices:
        x, y = population.at(round).of(device)
        module = recipe.build(recipe.check(scenario.job.parameters))
        trainer = PlainTrainer(recipe, module, TrainingSet(x, y))
        seed = (scenario.job.seed, round, device)
        updates.append(trainer.train(model, scenario.job.training, seed).delta)
    return updates


class SuddenRecipe(TinyRecipe):
    """Whose loss does ``what`` at a sample whose first number is ``MARK``, as long as a file is there or ``always``."""

    def __init__(self, file: Path, what: Callable[[], None], *, always: bool = False) -> None:
        self._file = file
        self._what = what
        self._always = always
        file.touch()

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        if self._file.exists() and bool(torch.isin(x[:, 0], torch.tensor(MARK)).any()):
            if not self._always:
                self._file.unlink()
            self._what()
        return super().loss(module, x, y)


def marked(population: Population, device: int) -> Population:
    """Return ``population`` with a sample of ``device`` at which ``SuddenRecipe`` acts."""
    data = population.phases[0].data
    data.x[data.offsets[device], 0] = MARK
    return population


def killed_here() -> None:
    """End this process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
