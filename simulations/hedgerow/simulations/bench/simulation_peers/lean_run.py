"""Our lean engine over the benchmark's task, through the seam that the simulation's loop uses.

``python -m …simulation_peers.lean_run FOLDER WORKERS``.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import PublicSet, find_recipe
from hedgerow.shared.job import CohortSpec, Job, PrivacySpec, TrainingSpec
from hedgerow.simulations.bench.simulation_peers.speaking import serve
from hedgerow.simulations.bench.simulation_peers.task import (
    CHECK_STEPS,
    PeerTask,
    Setup,
    read_model,
    read_task,
)
from hedgerow.simulations.engine.protocol import Batch, Engine, Task
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.population.values import FlatData, Phase, Population
from hedgerow.simulations.run.rule import AveragingRule, Gathered
from hedgerow.simulations.scenario.spec import PopulationSpec, Scenario

CLIP = 1.0


class LeanRounds:
    """FedAvg weighted by examples; an engine is opened anew when what is asked changes its kind of training.

    As a run does, it has its first model in the engine's memory alone.
    """

    def __init__(self, folder: Path, workers: int, closing: ExitStack) -> None:
        task = read_task(folder)
        self._task = replace(task, model=task.model[:0].copy())
        self._folder, self._workers, self._closing = folder, workers, closing
        self._recipe = find_recipe(task.recipe)
        self._population = population_of(task)
        self._rule = AveragingRule(1.0)
        self._engine: Engine | None = None

    def configure(self, setup: Setup) -> None:
        """Begin again with the first model."""
        self._closing.close()
        self._engine = LeanEngine(
            scenario_of(self._task, setup), self._recipe, self._population, workers=self._workers
        )
        self._closing.callback(self._engine.close)
        chosen = self._engine.open()
        sys.stdout.write(f"{setup}: {chosen}\n")
        self._setup, self._round, self._model = setup, 0, self._engine.hold(read_model(self._folder))

    def rounds(self, n: int) -> list[float]:
        """Run and time ``n`` rounds."""
        seconds = []
        for _ in range(n):
            start = time.perf_counter()
            self._round += 1
            self._one_round()
            seconds.append(time.perf_counter() - start)
        return seconds

    def _one_round(self) -> None:
        if self._engine is None:
            raise RuntimeError("configure comes before rounds")
        tasks = [
            Task(device, self._round, weight=float(self._task.count(device)), private=self._plan(device))
            for device in self._task.cohort(self._round, self._setup.cohort)
        ]
        answer = self._engine.train(Batch([self._model], tasks))
        if answer.count != len(tasks):
            raise RuntimeError(f"{len(tasks) - answer.count} of {len(tasks)} updates were rejected")
        gathered = Gathered(self._round, answer.total, answer.weight, answer, {})
        np.copyto(self._model, self._rule.release(b"", self._model, gathered)[1])

    def _plan(self, device: int) -> StepPlan | None:
        """Return what Opacus does for this device: an epoch of Poisson draws, or all examples in every step."""
        if not self._setup.private:
            return None
        if self._setup.whole:
            return StepPlan(1.0, self._setup.noise, CLIP, CHECK_STEPS)
        steps = math.ceil(self._task.count(device) / self._task.batch)
        return StepPlan(1 / steps, self._setup.noise, CLIP, steps)

    def model(self) -> npt.NDArray[np.float32]:
        """Return the model now."""
        return self._model


def scenario_of(task: PeerTask, setup: Setup) -> Scenario:
    """Return the scenario that a task and a setup amount to."""
    return Scenario(
        name="bench",
        seed=task.seed,
        population=PopulationSpec(devices=task.devices, source="npz"),
        job=Job(
            name="bench",
            recipe=task.recipe,
            parameters=task.parameters,
            seed=task.seed,
            privacy=PrivacySpec("example", epsilon=8.0, delta=1e-5) if setup.private else PrivacySpec("none"),
            cohort=CohortSpec("fixed", size=setup.cohort),
            training=TrainingSpec(batch_size=task.batch, learning_rate=task.learning_rate),
        ),
    )


def population_of(task: PeerTask) -> Population:
    """Return a task's devices and data as the simulation holds them; a few examples stand for the held-out set."""
    data = FlatData(task.x, task.y, task.offsets)
    few = np.arange(min(8, len(task.x)))
    held_out = PublicSet(task.x[:8], None if task.y is None else task.y[:8], few[:1], few[1:2])
    same = np.zeros(task.devices, np.int64)
    return Population((Phase(1, data),), held_out, None, same, same, ("all",))


def main(arguments: list[str]) -> None:
    """Serve the engine over the task of a folder."""
    with ExitStack() as closing:
        serve(LeanRounds(Path(arguments[0]), int(arguments[1]), closing))


if __name__ == "__main__":
    main(sys.argv[1:])
