"""The explicit kernel: a recipe's network compiled to steps, trained one device after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.batches import count_batches, epoch_orders
from hedgerow.simulations.kernel.compiled import CLIP_SLACK, Compiled, compile_recipe, grad_mode
from hedgerow.simulations.kernel.descent import Descent
from hedgerow.simulations.kernel.draws import step_stream, unit_noise
from hedgerow.simulations.kernel.evaluate import Evaluator
from hedgerow.simulations.kernel.explicit.buffers import Buffers
from hedgerow.simulations.kernel.explicit.program import Program
from hedgerow.simulations.kernel.protocol import KernelName, LocalJob, LocalResult, Vector

_CHUNK_VALUES = 16 * 1024 * 1024
"""Per-example gradients held at once with DP-SGD (64 MiB), as on a device."""


class ExplicitKernel:
    """See ``protocol.Kernel``. Memory: two models, the optimizer's state, and what layers hold for one batch."""

    name: KernelName = "explicit"
    group = 1

    def __init__(self, recipe: Recipe, parameters: Parameters, training: TrainingSpec) -> None:
        """Compile. Raises UnsupportedError for what has no kernel, or gives another gradient than autograd."""
        self._compiled = compile_recipe(recipe, parameters)
        self._training = training
        self._evaluator = Evaluator(recipe, recipe.build(parameters))
        self.n_parameters = self._compiled.network.n_parameters
        self._trainer = Trainer(self._compiled, training)

    def train(self, jobs: Sequence[LocalJob], out: npt.NDArray[np.float32]) -> list[LocalResult]:
        """Train one job after another; see ``protocol.Kernel``."""
        with grad_mode(self._compiled.loss):
            return [self._trainer.train(job, row) for job, row in zip(jobs, out, strict=True)]

    def forward(self, model: Vector, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the module's output for ``x``, in evaluation mode."""
        return self._evaluator.forward(model, x)

    def losses(
        self, model: Vector, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float32]:
        """Return the recipe's loss per example, ``(k,)``, in evaluation mode."""
        return self._evaluator.losses(model, x, y)


class Trainer:
    """Flat vectors, buffers and programs of one kernel; programs by number of examples."""

    def __init__(self, compiled: Compiled, training: TrainingSpec) -> None:
        self._compiled, self._spec = compiled, training
        size = compiled.network.n_parameters
        self._model, self._gradients = torch.empty(size), torch.empty(size)
        self._descent = Descent(training, self._model, self._gradients)
        self._buffers = Buffers(1)
        self._programs: dict[int, Program] = {}
        self._part = max(1, min(2 * training.batch_size, _CHUNK_VALUES // size))

    def train(self, job: LocalJob, out: Vector) -> LocalResult:
        """Train one job and write its update to ``out``."""
        layout = self._compiled.layout
        base = layout.inward(job.model)
        self._model.copy_(base)
        self._descent.begin(base, None if job.correction is None else layout.inward(job.correction))
        x = torch.from_numpy(job.x)
        y = None if job.y is None else torch.from_numpy(job.y)
        target = self._compiled.loss.targets(y, len(x)) if len(x) else None
        if job.private is not None:
            self._private(job, job.private, x, target)
            result = LocalResult(float("nan"), job.private.steps)
        else:
            result = self._plain(job, x, target)
        layout.outward(torch.sub(self._model, base, out=self._gradients), out)
        return result

    def _plain(self, job: LocalJob, x: torch.Tensor, target: torch.Tensor | None) -> LocalResult:
        n, batch = len(x), self._spec.batch_size
        epochs = self._spec.local_epochs if job.epochs is None else job.epochs
        last, steps, total = epochs * count_batches(n, batch) - count_batches(n, batch), 0, 0.0
        for order in epoch_orders(job.order_seed, n, epochs if n else 0):
            for chosen in torch.from_numpy(order).split(batch):
                program = self._load(x, chosen)
                rows = None if target is None else target[chosen]
                program.gradient(rows, 1.0 / len(chosen))
                if steps >= last:
                    total += float(self._compiled.loss.values().sum())
                self._descent.step()
                steps += 1
        return LocalResult(total / n if n and epochs else float("nan"), steps)

    def _private(self, job: LocalJob, plan: StepPlan, x: torch.Tensor, target: torch.Tensor | None) -> None:
        for step in range(plan.steps):
            stream = step_stream(job.noise_key, step)
            drawn = torch.from_numpy(stream.poisson_batch(len(x), plan.sampling_rate))
            self._gradients.zero_()
            for chosen in drawn.split(self._part) if len(drawn) else ():
                program = self._load(x, chosen)
                rows = None if target is None else target[chosen]
                program.add_clipped(rows, plan.clip_norm_l2, CLIP_SLACK)
            noise = unit_noise(stream, len(self._gradients))
            sigma = plan.noise_multiplier * plan.clip_norm_l2
            self._gradients.add_(self._compiled.layout.inward_tensor(noise), alpha=sigma)
            self._gradients.div_(self._spec.batch_size)
            self._descent.step()

    def _load(self, x: torch.Tensor, chosen: torch.Tensor) -> Program:
        """Return the program for these examples, its input filled."""
        program = self._program(len(chosen))
        torch.index_select(x, 0, chosen, out=program.x)
        return program

    def _program(self, n: int) -> Program:
        if n > self._buffers.capacity:
            self._buffers = Buffers(max(n, min(2 * n, self._spec.batch_size)))
            self._programs = {}
        if n not in self._programs:
            compiled = self._compiled
            self._programs[n] = Program(
                compiled.network, compiled.loss, n, self._model, self._gradients, self._buffers
            )
        return self._programs[n]
