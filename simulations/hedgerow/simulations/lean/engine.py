"""The lean engine: the default. One process a core, all arrays shared, sums exact, so that nothing shows how many workers there were.

Without CUDA on Linux, workers are forked once all is loaded, and share the examples by copy-on-write. Elsewhere, and with
``workers = 0``, orders are carried out in this process by the same code: forking a process that has used a GPU, or macOS's own
libraries, is not safe, and starting afresh would need a copy of all examples a worker. The CUDA path is untried.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Batch, DeviceScores, Vector
from hedgerow.simulations.kernel.threads import one_thread
from hedgerow.simulations.lean import choosing
from hedgerow.simulations.lean.batches import answer_of, clear, is_held, load, of_size, plan
from hedgerow.simulations.lean.choosing import Chosen
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.evaluation import device_scores, predictor
from hedgerow.simulations.lean.keeping import Keeping, Personal, Scaffold, Stateless
from hedgerow.simulations.lean.messages import encoder
from hedgerow.simulations.lean.pool import ForkPool, InlinePool, Pool
from hedgerow.simulations.lean.process import give_back_free_memory
from hedgerow.simulations.lean.state import DeviceState
from hedgerow.simulations.lean.worker import Worker
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.run.setting import personal_values
from hedgerow.simulations.scenario.spec import Scenario

MAX_WORKERS: Final = 1024


class LeanEngine:
    """Trains on this machine's cores; implements ``engine.protocol.Engine``. Not safe for two threads at once."""

    name = "lean"

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
        """Prepare; ``open`` starts. ``workers`` are processes, one a core if None; 0 trains in this process.

        ``choices`` are those that an earlier ``open`` returned, to take the same path. What devices keep between rounds
        (``scaffold``, ``fedper``) is in ``state_folder``, which must be empty for a run from its beginning, or else in memory.
        Raises ConfigError for a number of workers that makes no sense, or parameters that the recipe does not take.
        """
        if workers is not None and not 0 <= workers <= MAX_WORKERS:
            raise ConfigError(f"workers: expected a number from 0 to {MAX_WORKERS}, got {workers}")
        self._scenario = scenario
        self._recipe = recipe
        self._parameters = recipe.check(scenario.job.parameters)
        self._population = population
        self._workers = workers
        self._choices = dict(choices or {})
        self._state_folder = state_folder
        self._running: _Running | None = None
        self._tidy = False

    def __enter__(self) -> Self:
        """Return this engine; it is not opened yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def open(self) -> dict[str, str]:
        """Choose a kernel, start the workers, and return the choice; again, if called again.

        Where workers are forked, so is the process in which kernels are tried: one that crashes is skipped, and the choice says
        so. Raises UnsupportedError if chosen before was what cannot be had here, EngineError if no kernel can train the recipe,
        StorageError for the state folder.
        """
        if self._running is None:
            with one_thread():
                self._running = self._started()
        return self._running.chosen.recorded(self._running.pool.size)

    def hold(self, model: Vector) -> Vector:
        """Return a copy of ``model`` in the memory that workers train from. Raises ValueError for a model of another shape."""
        running = self._opened()
        held: Vector = running.shared.held.array(running.world.n)
        held[:] = of_size(model, running.world.n, "model")
        self._tidy = False
        return held

    def train(self, batch: Batch) -> Answer:
        """Train all tasks. A worker that dies is replaced and the batch done again: the same bits come out.

        Raises EngineError if that happened three times, or with what a recipe raised; StorageError if what devices keep
        cannot be written; ValueError for a batch that makes no sense.
        """
        running, n = self._opened(), self._opened().world.n
        control, held = isinstance(running.keeping, Scaffold), is_held(batch, running.shared)
        chosen, size = running.chosen, running.pool.size
        planned = plan(batch, running.world, chosen.group, size, control=control, held=held)
        load(batch, running.shared, n, control=control, held=held)
        orders = [encoder.encode(order) for order in planned.orders]
        if not self._tidy:
            # What the first model was made of and copied from is free by now.
            give_back_free_memory()
            self._tidy = True
        with one_thread():
            answers = running.pool.run(orders, lambda: clear(running.shared, n, control=control))
        return answer_of(batch, planned, answers, running.shared, n)

    def score(self, model: Vector) -> dict[str, float]:
        """Return the recipe's scores of ``model`` on the held-out set."""
        running = self._opened()
        with one_thread():
            predict = predictor(model, running.chosen.kernel, running.pool, running.shared)
            return self._recipe.score(predict, self._population.held_out, self._parameters)

    def score_devices(self, model: Vector, devices: Sequence[int], round: int) -> DeviceScores:
        """Return scores on the devices' own held-out examples, with the personal layers they had after ``round``."""
        running = self._opened()
        with one_thread():
            return device_scores(model, devices, round, running.world, running.pool, running.shared)

    def close(self) -> None:
        """End all workers and give all memory back. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            running.pool.close()
            running.shared.close()
            if running.state is not None:
                running.state.close()

    def _opened(self) -> _Running:
        if self._running is None:
            raise EngineError("the engine is not open")
        return self._running

    def _started(self) -> _Running:
        forks = self._workers != 0 and sys.platform == "linux"
        chosen = choosing.choose(
            self._recipe, self._parameters, self._scenario, self._population, self._choices, apart=forks
        )
        world = self._world(chosen)
        state, keeping = self._keeping(world)
        inline = not forks or chosen.device != "cpu"
        shared = Shared.make(shared=not inline)
        worker = Worker(world, self._recipe, chosen.kernel, keeping, shared)
        size = self._workers or choosing.cores()
        if not inline:
            give_back_free_memory()
        pool: Pool = InlinePool(worker.answer) if inline else ForkPool(worker.answer, size)
        return _Running(chosen, world, keeping, shared, pool, state)

    def _world(self, chosen: Chosen) -> World:
        n = chosen.kernel.n_parameters
        personal = personal_values(self._scenario, self._recipe)
        labels = [phase.data.y for phase in self._population.phases]
        most = max((int(y.max(initial=-1)) for y in labels if y is not None), default=-1)
        classes = max(len(self._recipe.labels(self._parameters)), most + 1)
        return World(self._scenario, self._population, n, n - personal, classes)

    def _keeping(self, world: World) -> tuple[DeviceState | None, Keeping]:
        job = self._scenario.job
        if job.strategy.name == "scaffold":
            state = DeviceState(self._population.devices, world.n, self._state_folder)
            return state, Scaffold(state, job.training.learning_rate)
        if world.n_shared < world.n:
            personal = world.n - world.n_shared
            state = DeviceState(self._population.devices, personal, self._state_folder)
            return state, Personal(state, personal)
        return None, Stateless()


class _Running(NamedTuple):
    chosen: Chosen
    world: World
    keeping: Keeping
    shared: Shared
    pool: Pool
    state: DeviceState | None
