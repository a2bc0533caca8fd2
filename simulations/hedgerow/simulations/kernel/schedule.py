"""Which examples of which device go into which step when many train side by side; index work, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.batches import count_batches, epoch_orders
from hedgerow.simulations.kernel.losses import OutputLoss
from hedgerow.simulations.kernel.protocol import LocalJob

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
        self._counts = np.array([len(job.x) for job in jobs], np.int64)
        self._steps = steps
        self.rows = int(min(training.batch_size, max(1, self._counts.max())))
        self._each = -(-self._counts // training.batch_size)
        longest = int(steps[0]) if len(steps) else 0
        active = np.searchsorted(-steps, -np.arange(longest), side="left")
        self.active = active.tolist()
        self._first = np.concatenate([[0], np.cumsum(active)])
        self._number = np.repeat(np.arange(longest), active)
        self._device = np.arange(self._first[-1]) - np.repeat(self._first[:-1], active)
        last = self.last_epoch()
        self.any_last = [bool(last[self.part(step)].any()) for step in range(longest)]
        self._index = np.full((self._first[-1], self.rows), blank, np.int64)
        for device, (job, start) in enumerate(zip(jobs, starts[:-1].tolist(), strict=True)):
            stream = _stream(job, start, _epochs(job, training), int(self._each[device]) * self.rows, blank)
            self._index[self._first[: steps[device]] + device] = stream.reshape(-1, self.rows)

    def part(self, step: int) -> slice:
        """Return where a step's devices are."""
        return slice(int(self._first[step]), int(self._first[step + 1]))

    def window(self, step: int) -> Ints:
        """Return the examples of one step, int64 ``(active · rows,)``; the blank one where a batch is short."""
        return self._index[self.part(step)].reshape(-1)

    def scales(self) -> npt.NDArray[np.float32]:
        """Return each row's weight, float32 ``(devices and steps, rows)``: 1 / size of its batch, zero where it is blank."""
        before = self.rows * (self._number % self._each[self._device])
        size = np.minimum(self.rows, self._counts[self._device] - before)[:, None]
        return ((np.arange(self.rows) < size) / size).astype(np.float32)

    def last_epoch(self) -> npt.NDArray[np.float64]:
        """Return 1 where a device's step is one of its last epoch's, float64 ``(devices and steps,)``."""
        left = self._steps[self._device] - self._number
        return (left <= self._each[self._device]).astype(np.float64)


def _stream(job: LocalJob, start: int, epochs: int, length: int, blank: int) -> Ints:
    """Return a job's examples in the order of its steps, int64 ``(epochs, length)``, the rest of each epoch blank."""
    n = len(job.x)
    out = np.full((epochs, length), blank, np.int64)
    for places, order in zip(out, epoch_orders(job.order_seed, n, epochs if n else 0), strict=False):
        np.add(order, start, out=places[:n])
    return out
