"""Which examples of which device go into which step when many train side by side; index work, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.batches import count_batches, orders_of
from hedgerow.simulations.kernel.losses import OutputLoss
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.kernel.seeds import generators

Ints = npt.NDArray[np.int64]


def step_counts(jobs: Sequence[LocalJob], training: TrainingSpec) -> Ints:
    """Return how many steps each job takes, int64 ``(len(jobs),)``."""
    return np.array(
        [
            job.private.steps
            if job.private is not None
            else _epochs(job, training) * count_batches(len(job.x), training.batch_size)
            for job in jobs
        ],
        np.int64,
    )


def _epochs(job: LocalJob, training: TrainingSpec) -> int:
    return training.local_epochs if job.epochs is None else job.epochs


class Table:
    """The examples of all jobs in one tensor, and a ``blank`` one, all zero, after the last; a job's begin at its ``starts``."""

    def __init__(
        self,
        jobs: Sequence[LocalJob],
        loss: OutputLoss,
        input_shape: tuple[int, ...],
        device: torch.device,
    ) -> None:
        counts = [len(job.x) for job in jobs]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.blank = int(self.starts[-1])
        x = np.empty((self.blank + 1, *input_shape), np.float32)
        np.concatenate([job.x for job in jobs], out=x[: self.blank])
        x[self.blank] = 0
        self._x = torch.from_numpy(x).to(device)
        labels = [job.y for job in jobs if job.y is not None]
        y = torch.from_numpy(np.concatenate(labels)).to(device) if len(labels) == len(jobs) else None
        target = loss.targets(y, self.blank)
        self._target = None if target is None else torch.cat([target, torch.zeros_like(target[:1])])

    def fill(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor | None:
        """Fill ``x`` with the examples at ``index``, int64 ``(rows,)``, and return their targets."""
        torch.index_select(self._x, 0, index, out=x)
        return None if self._target is None else torch.index_select(self._target, 0, index)


class Rounds:
    """Plain training's steps: ``active[t]`` devices take step ``t``, ``rows`` examples each at most.

    Jobs must be sorted by ``steps``, most first. What there is for each device and step lies step after step, of the active devices
    alone: ``part(t)`` is where step ``t`` is in it.
    """

    def __init__(
        self, jobs: Sequence[LocalJob], training: TrainingSpec, steps: Ints, starts: Ints, blank: int
    ) -> None:
        counts = np.array([len(job.x) for job in jobs], np.int64)
        self.rows = int(min(training.batch_size, max(1, counts.max())))
        longest = int(steps[0]) if len(steps) else 0
        active = np.searchsorted(-steps, -np.arange(longest), side="left")
        self.active = active.tolist()
        self._first = np.concatenate([[0], np.cumsum(active)])
        number = np.repeat(np.arange(longest), active)
        device = np.arange(self._first[-1]) - np.repeat(self._first[:-1], active)
        each = (-(-counts // training.batch_size))[device]
        epoch, batch = np.divmod(number, each)
        self._last = np.asarray(steps[device] - number <= each, np.float64)
        self.any_last = [bool(self._last[self.part(step)].any()) for step in range(longest)]
        self._size = np.minimum(self.rows, counts[device] - self.rows * batch)[:, None]
        self._real = np.arange(self.rows) < self._size
        orders, at = _orders(jobs, training)
        first = at[device] + epoch * counts[device] + self.rows * batch
        places = np.where(self._real, first[:, None] + np.arange(self.rows), 0)
        self._index = np.where(self._real, orders[places] + starts[device, None], blank)

    def part(self, step: int) -> slice:
        """Return where a step's devices are."""
        return slice(int(self._first[step]), int(self._first[step + 1]))

    def window(self, step: int) -> Ints:
        """Return the examples of one step, int64 ``(active · rows,)``; the blank one where a batch is short."""
        return self._index[self.part(step)].reshape(-1)

    def scales(self) -> npt.NDArray[np.float32]:
        """Return each row's weight, float32 ``(devices and steps, rows)``: 1 / size of its batch, zero where it is blank."""
        return np.asarray(self._real / self._size, np.float32)

    def last_epoch(self) -> npt.NDArray[np.float64]:
        """Return 1 where a device's step is one of its last epoch's, float64 ``(devices and steps,)``."""
        return self._last


def _orders(jobs: Sequence[LocalJob], training: TrainingSpec) -> tuple[Ints, Ints]:
    """Return the orders of all jobs' epochs one after another, int64, and where each job's begin."""
    found: list[Ints] = []
    lengths = [0]
    for job, order in zip(jobs, generators([job.order_seed for job in jobs]), strict=True):
        n, epochs = len(job.x), _epochs(job, training)
        found.extend(orders_of(order, n, epochs if n else 0))
        lengths.append(n * epochs)
    return np.concatenate([np.empty(0, np.int64), *found]), np.cumsum(lengths)
