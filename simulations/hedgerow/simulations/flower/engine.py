"""The engine ``flower``: devices are trained by Flower's simulation runtime in Ray's actors, by the same local code.

For those who outgrow one machine: with ``RAY_ADDRESS`` set, actors run where that Ray cluster has room (tried on one machine
only; what devices keep between rounds needs a folder that all machines share). A task is a message to a virtual node. Updates are
added on the lean engine's lattice, so that a run with the lean engine's reference kernel comes to the same bits. Evaluation is done in
this process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import ConfigError, UnsupportedError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Batch, DeviceScores, Vector
from hedgerow.simulations.flower.runtime import LostError, Runtime, drop_folder, new_folder
from hedgerow.simulations.flower.values import REFERENCE, Asked, Done, World
from hedgerow.simulations.lean.choosing import cores
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.lean.lattice import as_doubles, exponent_for
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.scenario.spec import Scenario

MAX_WORKERS: Final = 1024
_MOST_LOSSES: Final = 3


class FlowerEngine:
    """Trains through Flower on Ray; implements ``engine.protocol.Engine``. Not safe for two threads at once."""

    name = "flower"

    def __init__(
        self,
        scenario: Scenario,
        recipe: Recipe,
        population: Population,
        *,
        workers: int | None = None,
        choices: Mapping[str, str] | None = None,
        state_folder: Path | None = None,
    ) -> None:
        """Prepare; ``open`` starts. ``workers`` are Ray actors of one CPU, one a core if None; a cluster decides itself.

        What devices keep between rounds (``scaffold``, ``fedper``) is in ``state_folder``, or for the run's time in a temporary one.
        Raises ConfigError for a number of workers that makes no sense, ``choices`` of another kernel than the reference,
        or parameters that the recipe does not take.
        """
        if workers is not None and not 1 <= workers <= MAX_WORKERS:
            raise ConfigError(f"workers: expected a number from 1 to {MAX_WORKERS}, got {workers}")
        kernel = (choices or {}).get("kernel", REFERENCE["kernel"])
        if kernel != REFERENCE["kernel"]:
            raise ConfigError(
                f"choices: kernel: engine flower trains with {REFERENCE['kernel']!r}, not {kernel!r}"
            )
        self._workers = workers or cores()
        self._scenario, self._recipe, self._population = scenario, recipe, population
        self._state_folder = state_folder
        self._folder: Path | None = None
        self._runtime: Runtime | None = None
        self._here = self._inline(state_folder)

    def __enter__(self) -> Self:
        """Return this engine; it is not opened yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def open(self) -> dict[str, str]:
        """Start Flower and Ray, and return the choice (there is one); again, if called again.

        Raises EngineError if they do not start, UnsupportedError where they are not installed, StorageError for the state folder.
        """
        if self._runtime is None:
            _check_installed()
            self._folder = new_folder()
            try:
                if self._state_folder is None:
                    self._here = self._inline(self._folder / "state")
                self._here.open()
                self._runtime = self._started()
            except BaseException:
                self.close()
                raise
        return {**REFERENCE, "workers": str(self._workers)}

    def hold(self, model: Vector) -> Vector:
        """Return a copy of ``model``: actors get theirs by message, wherever it lies here."""
        return model.copy()

    def train(self, batch: Batch) -> Answer:
        """Train all tasks. When an actor, Ray or Flower dies, all are started anew and the batch is done again.

        Raises EngineError if that happened three times, or with what a recipe raised; ValueError for a batch that makes no sense.
        """
        if self._runtime is None:
            raise EngineError("the engine is not open")
        _check(batch, self._population.devices)
        if not batch.tasks:
            return self._here.train(batch)
        exponent = exponent_for([task.weight for task in batch.tasks])
        versions = sorted({task.version for task in batch.tasks})
        models = {version: batch.models[version] for version in versions}
        asked = Asked(models, tuple(batch.tasks), exponent, batch.want == "each", batch.control)
        return _answer(batch, self._trained(asked), exponent)

    def score(self, model: Vector) -> dict[str, float]:
        """Return the recipe's scores of ``model`` on the held-out set."""
        return self._here.score(model)

    def score_devices(self, model: Vector, devices: Sequence[int], round: int) -> DeviceScores:
        """Return scores on the devices' own held-out examples, with the personal layers they had after ``round``."""
        return self._here.score_devices(model, devices, round)

    def close(self) -> None:
        """End Flower, Ray and their processes, and remove their files. Idempotent."""
        runtime, self._runtime = self._runtime, None
        folder, self._folder = self._folder, None
        try:
            if runtime is not None:
                runtime.close()
        finally:
            self._here.close()
            if folder is not None:
                drop_folder(folder)

    def _trained(self, asked: Asked) -> Done:
        losses = 0
        while True:
            if self._runtime is None:
                self._runtime = self._started()
            try:
                return self._runtime.train(asked)
            except LostError as error:
                self._runtime.close()
                losses += 1
                if losses == _MOST_LOSSES:
                    raise EngineError(f"{error} (lost {losses} times in one batch)") from error
                self._runtime = None

    def _started(self) -> Runtime:
        if self._folder is None:
            raise EngineError("the engine is not open")
        state = self._state_folder or self._folder / "state"
        world = World(self._scenario, self._recipe, self._population, state)
        return Runtime(world, self._workers, self._folder)

    def _inline(self, state_folder: Path | None) -> LeanEngine:
        """Return an engine in this process, for evaluation."""
        return LeanEngine(
            self._scenario,
            self._recipe,
            self._population,
            workers=0,
            choices=REFERENCE,
            state_folder=state_folder,
        )


def _answer(batch: Batch, done: Done, exponent: int) -> Answer:
    counted = [
        task for task, outcome in zip(batch.tasks, done.outcomes, strict=True) if outcome.rejected is None
    ]
    return Answer(
        total=as_doubles(done.total, exponent),
        weight=math.fsum(task.weight for task in counted),
        count=len(counted),
        outcomes=done.outcomes,
        updates=done.updates,
        control=done.control,
    )


def _check(batch: Batch, devices: int) -> None:
    for task in batch.tasks:
        if not 0 <= task.device < devices or not 0 <= task.version < len(batch.models) or task.round < 1:
            raise ValueError(f"{task} of {devices} devices, {len(batch.models)} models, rounds from 1")


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("flwr", "ray") if find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"engine flower needs {' and '.join(missing)}: pip install 'hedgerow[simulation]'"
        )
