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
        x = np.zeros((self.blank + 1, *input_shape), np.float32)
        np.concatenate([job.x for job in jobs], out=x[: self.blank])
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

    Jobs must be sorted by ``steps``, most first.
    """

    def __init__(
        self, jobs: Sequence[LocalJob], training: TrainingSpec, steps: Ints, starts: Ints, blank: int
    ) -> None:
        self._counts = np.array([len(job.x) for job in jobs], np.int64)
        self._steps, self._blank = steps, blank
        self.rows = int(min(training.batch_size, max(1, self._counts.max())))
        self._each = -(-self._counts // training.batch_size)
        longest = int(steps[0]) if len(steps) else 0
        self.active = [int(n) for n in np.searchsorted(-steps, -np.arange(longest), side="left")]
        self.any_last = self.last_epoch().sum(axis=1) > 0
        self._streams = [
            _stream(job, int(start), _epochs(job, training), training.batch_size, self.rows, blank)
            for job, start in zip(jobs, starts[:-1], strict=True)
        ]

    def window(self, step: int) -> Ints:
        """Return the examples of one step, int64 ``(active · rows,)``; the blank one where a batch is short."""
        return np.concatenate([stream[step] for stream in self._streams[: self.active[step]]])

    def scales(self) -> npt.NDArray[np.float32]:
        """Return each row's weight, float32 ``(steps, devices, rows)``: 1 / size of its batch, zero where it is blank."""
        out = np.zeros((len(self.active), len(self._streams), self.rows), np.float32)
        for device, stream in enumerate(self._streams):
            real = stream != self._blank
            out[: len(stream), device] = real / np.maximum(real.sum(axis=1, keepdims=True), 1)
        return out

    def last_epoch(self) -> npt.NDArray[np.float64]:
        """Return 1 where a device's step is one of its last epoch's, float64 ``(steps, devices)``."""
        number = np.arange(len(self.active))[:, None]
        return ((number < self._steps) & (number >= self._steps - self._each)).astype(np.float64)


def _stream(job: LocalJob, start: int, epochs: int, batch_size: int, rows: int, blank: int) -> Ints:
    """Return a job's examples step by step, int64 ``(steps, rows)``."""
    n = len(job.x)
    each = count_batches(n, batch_size)
    out = np.full((epochs, each * rows), blank, np.int64)
    for number, order in enumerate(epoch_orders(job.order_seed, n, epochs if n else 0)):
        out[number, :n] = order + start
    return out.reshape(epochs * each, rows)
