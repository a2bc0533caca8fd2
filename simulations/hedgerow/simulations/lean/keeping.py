"""What a device keeps for itself, by strategy: nothing, SCAFFOLD's control variate, or personal layers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.protocol import Task
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.lean.state import DeviceState


class Kept(NamedTuple):
    """After training: what the device keeps if its update counts, and the change of its control to be summed."""

    values: Vector | None = None
    control_change: Vector | None = None


class Keeping(Protocol):
    """One strategy's part on the device. A device whose update is rejected keeps what it had."""

    def prepare(self, job: LocalJob, task: Task, control: Vector | None) -> LocalJob:
        """Return ``job`` with what the device kept before ``task.round``."""

    def finish(self, job: LocalJob, update: Vector, steps: int, control: Vector | None) -> Kept:
        """Return what follows from ``update``, float32 ``(n,)``, the honest one."""

    def keep(self, task: Task, kept: Kept) -> None:
        """Keep it as of ``task.round``."""

    def model(self, model: Vector, device: int, round: int) -> Vector:
        """Return the model that ``device`` uses after ``round``."""


class Stateless:
    """Devices keep nothing."""

    def prepare(self, job: LocalJob, task: Task, control: Vector | None) -> LocalJob:
        """Return ``job``."""
        del task, control
        return job

    def finish(self, job: LocalJob, update: Vector, steps: int, control: Vector | None) -> Kept:
        """Return nothing to keep."""
        del job, update, steps, control
        return Kept()

    def keep(self, task: Task, kept: Kept) -> None:
        """Keep nothing."""

    def model(self, model: Vector, device: int, round: int) -> Vector:
        """Return ``model``."""
        del device, round
        return model


class Scaffold(Stateless):
    """SCAFFOLD (Karimireddy et al. 2020, algorithm 1): cᵢ is kept, gradients get c − cᵢ, and by option II
    cᵢ⁺ = cᵢ − c + (x − yᵢ) / (K η), for K steps at rate η.
    """

    def __init__(self, state: DeviceState, learning_rate: float) -> None:
        self._state = state
        self._rate = learning_rate

    def prepare(self, job: LocalJob, task: Task, control: Vector | None) -> LocalJob:
        """Return ``job`` with the correction c − cᵢ; both begin as zero."""
        own = self._state.before(task.device, task.round)
        server = np.zeros_like(job.model) if control is None else control
        return job._replace(correction=server.copy() if own is None else server - own)

    def finish(self, job: LocalJob, update: Vector, steps: int, control: Vector | None) -> Kept:
        """Return cᵢ⁺ = −(c − cᵢ) − update / (K η) and its change from cᵢ, which is −c − update / (K η)."""
        own = update * np.float32(-1.0 / (max(1, steps) * self._rate))
        change = own.copy() if control is None else own - control
        if job.correction is not None:
            own -= job.correction
        return Kept(own, change)

    def keep(self, task: Task, kept: Kept) -> None:
        """Keep cᵢ⁺."""
        if kept.values is not None:
            self._state.keep(task.device, task.round, kept.values)


class Personal(Stateless):
    """FedPer (Arivazhagan et al. 2019): the last ``size`` values stay on the device, which begins with the model's."""

    def __init__(self, state: DeviceState, size: int) -> None:
        self._state = state
        self._size = size

    def prepare(self, job: LocalJob, task: Task, control: Vector | None) -> LocalJob:
        """Return ``job`` from the device's own model."""
        del control
        return job._replace(model=self.model(job.model, task.device, task.round - 1))

    def finish(self, job: LocalJob, update: Vector, steps: int, control: Vector | None) -> Kept:
        """Return the personal values as trained."""
        del steps, control
        return Kept(job.model[-self._size :] + update[-self._size :])

    def keep(self, task: Task, kept: Kept) -> None:
        """Keep the personal values."""
        if kept.values is not None:
            self._state.keep(task.device, task.round, kept.values)

    def model(self, model: Vector, device: int, round: int) -> Vector:
        """Return ``model`` with the personal values that ``device`` had after ``round``, if any."""
        own = self._state.before(device, round + 1)
        if own is None:
            return model
        mine = model.copy()
        mine[-self._size :] = own
        return mine
