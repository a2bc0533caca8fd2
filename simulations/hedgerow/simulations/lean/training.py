"""Training of one unit: examples in, outcomes out, what counts added to the shared sums."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from hedgerow.edge_agent.trainer.codes import Code
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.protocol import Outcome, Task
from hedgerow.simulations.kernel.protocol import Kernel, LocalJob, LocalResult
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.grouping import cost_of
from hedgerow.simulations.lean.keeping import Keeping, Kept
from hedgerow.simulations.lean.lattice import MAX_VALUE, Adder, Floats, Guard, unguarded
from hedgerow.simulations.lean.messages import TrainOrder, Unit
from hedgerow.simulations.lean.sending import Sent, norm_l2, send

_CONTROL_LOCKS: Final = 1 << 40
"""Locks of the control's sum are numbered from here, those of the updates' from 0."""


class _Row(NamedTuple):
    """A task that can be trained: its place in the unit, and its rows of updates and control changes."""

    at: int
    task: Task
    job: LocalJob
    update: Vector
    change: Vector | None


class Training:
    """Trains units with one kernel. Not safe for two threads at once."""

    def __init__(self, world: World, kernel: Kernel, keeping: Keeping, shared: Shared) -> None:
        self._world = world
        self._kernel = kernel
        self._keeping = keeping
        self._shared = shared
        self._adder = Adder()
        self._updates = np.empty((0, world.n), np.float32)  # the kernel's room
        self._changes = np.empty((0, world.n), np.float32)

    def train(self, unit: Unit, order: TrainOrder) -> list[Outcome]:
        """Train the unit's tasks, add what counts, and return their outcomes in the unit's order.

        A device without examples answers as one of a fleet does: it declines, and nothing of it counts.
        """
        control = self._shared.control.array(self._world.n) if order.control else None
        outcomes = [_declined(task) for task in unit.tasks]
        began = time.thread_time()
        rows = self._rows(unit, order, control)
        if not rows:
            return outcomes
        results = self._kernel.train([row.job for row in rows], self._updates[: len(rows)])
        spent = time.thread_time() - began
        costs = [cost_of(row.task, len(row.job.x), self._world.training.local_epochs) for row in rows]
        counts, bounds = [], []
        for row, result, cost in zip(rows, results, costs, strict=True):
            sent = self._judge(row, result, control)
            outcomes[row.at] = self._outcome(row, result, sent, spent * cost / sum(costs))
            counts.append(sent.values is not None)
            # Twice: a norm is rounded, and so is what was packed.
            bounds.append(2 * sent.norm_l2 if sent.values is not None else 0.0)
            if order.each and sent.values is not None:
                self._shared.updates.array(order.batch, self._world.n)[unit.places[row.at]] = row.update
        self._add(rows, counts, bounds, order)
        return outcomes

    def _rows(self, unit: Unit, order: TrainOrder, control: Vector | None) -> list[_Row]:
        models = self._shared.base(order.models, self._world.n)
        jobs = [(at, task, self._job(task, models[task.version])) for at, task in enumerate(unit.tasks)]
        able = [one for one in jobs if len(one[2].x)]
        self._updates = self._kernel.room(len(able))
        if order.control:
            self._changes = _of_length(self._changes, len(able))
        return [
            _Row(
                at,
                task,
                self._keeping.prepare(job, task, control),
                self._updates[number],
                self._changes[number] if order.control else None,
            )
            for number, (at, task, job) in enumerate(able)
        ]

    def _job(self, task: Task, model: Vector) -> LocalJob:
        world = self._world
        x, y = world.population.at(task.round).of(task.device)
        newest = slice(-world.training.max_samples, None)
        x, y = x[newest], None if y is None else y[newest]
        if task.attack is not None and task.attack.kind == "label-flip":
            if y is None:
                raise UnsupportedError("label-flip needs examples with labels")
            y = world.classes - 1 - y
        seed = (world.scenario.job.seed, task.round, task.device)
        keyed_by = world.scenario.seed if task.noise_seed is None else task.noise_seed
        noise = (keyed_by, task.round, task.device)
        return LocalJob(model, x, y, seed, task.epochs, task.private, noise if task.private else ())

    def _judge(self, row: _Row, result: LocalResult, control: Vector | None) -> Sent:
        """Leave in the row what the server has of the update, and with the device what it keeps."""
        shared = row.update[: self._world.n_shared]
        kept = self._keeping.finish(row.job, row.update, result.steps, control)
        sent = send(shared, row.task, self._world.scenario.seed, self._world.scenario.job.packing)
        if sent.values is not None and (reason := _unfit(kept)) is not None:
            sent = sent._replace(values=None, rejected=reason)
        if sent.values is None:
            row.update[:] = 0
        else:
            if sent.values is not shared:
                shared[:] = sent.values
            row.update[self._world.n_shared :] = 0
            self._keeping.keep(row.task, kept)
        if row.change is not None:
            row.change[:] = 0 if sent.values is None or kept.control_change is None else kept.control_change
        return sent

    def _outcome(self, row: _Row, result: LocalResult, sent: Sent, train_s: float) -> Outcome:
        return Outcome(
            device=row.task.device,
            n_samples=len(row.job.x),
            loss=None if row.task.private is not None or math.isnan(result.loss) else result.loss,
            norm_l2=sent.norm_l2,
            n_bytes=sent.n_bytes + (0 if row.change is None else 4 * row.change.size),
            train_s=train_s,
            rejected=sent.rejected,
        )

    def _add(
        self, rows: Sequence[_Row], counts: Sequence[bool], bounds: Sequence[float], order: TrainOrder
    ) -> None:
        stripes, n = self._shared.stripes, self._world.n
        weights = [row.task.weight if counted else 0.0 for row, counted in zip(rows, counts, strict=True)]
        guard: Guard = unguarded if stripes is None else stripes.held
        total = self._shared.sums.array(n)[: self._world.n_shared]
        updates = self._updates[: len(rows), : self._world.n_shared]
        self._adder.add(total, updates, weights, order.exponent, guard, bounds)
        if order.control:
            if stripes is not None:
                guard = stripes.above(_CONTROL_LOCKS)
            total = self._shared.control_sums.array(n)
            ones = [float(counted) for counted in counts]
            self._adder.add(total, self._changes[: len(rows)], ones, order.control_exponent, guard)


def _of_length(rows: Floats, length: int) -> Floats:
    return rows if len(rows) >= length else np.empty((length, rows.shape[1]), np.float32)


def _declined(task: Task) -> Outcome:
    return Outcome(task.device, 0, None, 0.0, 0, 0.0, Code.NO_SAMPLES.value)


def _unfit(kept: Kept) -> str | None:
    """Return why what a device would keep cannot be used: it would follow it into all its rounds."""
    for values in (kept.values, kept.control_change):
        norm = 0.0 if values is None else norm_l2(values)
        if not math.isfinite(norm):
            return "non-finite"
        if norm > MAX_VALUE:
            return "over-norm"
    return None
