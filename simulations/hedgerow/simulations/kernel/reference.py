"""The reference kernel: the device's own trainers, one device after another. Slow and never wrong: the others are held to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from hedgerow.edge_agent.trainer.dpsgd import PrivateTrainer
from hedgerow.edge_agent.trainer.local_optimizer import ProximalPull
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.edge_agent.trainer.private_optimizer import PrivateOptimizer
from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import Parameters, Recipe, TrainingSet
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.draws import KeyedDraws
from hedgerow.simulations.kernel.evaluate import Evaluator
from hedgerow.simulations.kernel.network import kernel_order
from hedgerow.simulations.kernel.protocol import KernelName, LocalJob, LocalResult, Vector


class ReferenceKernel:
    """Any recipe, through ``PlainTrainer`` and ``PrivateTrainer``."""

    name: KernelName = "reference"
    group = 1

    def __init__(self, recipe: Recipe, parameters: Parameters, training: TrainingSpec) -> None:
        self._recipe = recipe
        self._training = training
        self._parameters = parameters
        self._module = recipe.build(parameters)
        self._evaluator = Evaluator(recipe, parameters)
        self._order = kernel_order(self._module, tuple(recipe.input_spec(parameters).shape))
        self.n_parameters = len(self._order)

    def train(self, jobs: Sequence[LocalJob], out: npt.NDArray[np.float32]) -> list[LocalResult]:
        """Train one job after another; see ``protocol.Kernel``."""
        return [
            self._plain(job, row) if job.private is None else self._private(job, job.private, row)
            for job, row in zip(jobs, out, strict=True)
        ]

    def room(self, jobs: int) -> npt.NDArray[np.float32]:
        """Return memory for updates; see ``protocol.Kernel``."""
        return np.empty((jobs, self.n_parameters), np.float32)

    def forward(self, model: Vector, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the module's output for ``x``, in evaluation mode."""
        return self._evaluator.forward(model, x)

    def losses(
        self, model: Vector, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float32]:
        """Return the recipe's loss per example, ``(k,)``, in evaluation mode."""
        return self._evaluator.losses(model, x, y)

    def _plain(self, job: LocalJob, out: Vector) -> LocalResult:
        trainer = _PlainCorrected(self._recipe, self._module, TrainingSet(job.x, job.y))
        trainer.correction = job.correction
        spec = self._spec(job)
        result = trainer.train(job.model, spec, job.order_seed)
        out[:] = result.delta
        return LocalResult(result.loss, spec.local_epochs * -(-len(job.x) // spec.batch_size))

    def _private(self, job: LocalJob, plan: StepPlan, out: Vector) -> LocalResult:
        # Opacus wraps a module for good, so each device gets its own.
        trainer = _PrivateKeyed(self._recipe, self._recipe.build(self._parameters), TrainingSet(job.x, job.y))
        trainer.correction = job.correction
        trainer.draw_from(KeyedDraws(job.noise_key, self._order))
        out[:] = trainer.train(job.model, self._spec(job), plan)
        return LocalResult(float("nan"), plan.steps)

    def _spec(self, job: LocalJob) -> TrainingSpec:
        if job.epochs is None:
            return self._training
        return msgspec.structs.replace(self._training, local_epochs=job.epochs)


class _PlainCorrected(PlainTrainer):
    """A device's trainer whose gradients get a correction added, where FedProx adds its pull."""

    correction: Vector | None = None

    def _epoch(
        self, optimizer: torch.optim.Optimizer, pull: ProximalPull, batch: int, order: np.random.Generator
    ) -> float:
        return super()._epoch(optimizer, _Corrected(self._module, pull, self.correction), batch, order)


class _PrivateKeyed(PrivateTrainer):
    """A device's private trainer, its randomness keyed by the simulation instead of the operating system."""

    correction: Vector | None = None
    _random: Any

    def draw_from(self, draws: KeyedDraws) -> None:
        """Take batches and noise from ``draws``."""
        self._random = draws

    def _step(self, optimizer: PrivateOptimizer, pull: ProximalPull, rate: float) -> None:
        super()._step(optimizer, _Corrected(self._module, pull, self.correction), rate)


class _Corrected(ProximalPull):
    """FedProx's pull and SCAFFOLD's correction (Karimireddy et al. 2020, equation 3), both added to ``grad``."""

    def __init__(self, module: torch.nn.Module, pull: ProximalPull, correction: Vector | None) -> None:
        self._pull = pull
        self._module = module
        self._correction = torch.empty(0) if correction is None else torch.from_numpy(np.array(correction))

    def apply(self) -> None:
        """Change ``grad`` in place."""
        self._pull.apply()
        offset = 0
        for parameter in self._module.parameters() if len(self._correction) else ():
            part = self._correction[offset : offset + parameter.numel()]
            offset += parameter.numel()
            if parameter.grad is not None:
                parameter.grad.add_(part.view(parameter.shape))
