"""The explicit kernel: one device after another, its layers as straight calls; for models that keep a core busy by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.bank import Bank, LayerBank
from hedgerow.simulations.kernel.batches import count_batches, epoch_orders
from hedgerow.simulations.kernel.compiled import Compiled, compile_recipe, grad_mode
from hedgerow.simulations.kernel.descent import Descent, is_plain
from hedgerow.simulations.kernel.draws import job_stream, noise_words, normal_draws
from hedgerow.simulations.kernel.evaluate import Evaluator
from hedgerow.simulations.kernel.program import Program, Programs
from hedgerow.simulations.kernel.proof import RATE, prove_gradient
from hedgerow.simulations.kernel.protocol import KernelName, LocalJob, LocalResult, Vector

_CPU = torch.device("cpu")
_CHUNK_VALUES = 16 * 1024 * 1024
"""Per-example gradients held at once with DP-SGD (64 MiB), as on a device."""


class ExplicitKernel:
    """See ``protocol.Kernel``. Memory: parameters (``room`` is theirs), and what layers hold for one batch; with anything but plain
    SGD (DP-SGD, momentum, Adam, a proximal term, corrections) gradients and the optimizer's state too. Nothing of it before the
    first training, so that processes forked until then have it once each.
    """

    name: KernelName = "explicit"
    group = 1

    def __init__(self, recipe: Recipe, parameters: Parameters, training: TrainingSpec) -> None:
        """Compile. Raises UnsupportedError for what has no kernel, or gives another gradient than autograd."""
        self._compiled = compile_recipe(recipe, parameters)
        self.n_parameters = self._compiled.network.n_parameters
        self._spec = training
        self._values: torch.Tensor | None = None
        self._trainers: dict[bool, _Trainer] = {}
        self._evaluator = Evaluator(recipe, parameters)
        # As plain SGD goes where that is what the job says: large models are then proven without a gradient of all.
        rate = RATE if is_plain(training) else None
        _Trainer(self._compiled, training, torch.zeros(self.n_parameters), rate).prove(recipe, parameters)

    def train(self, jobs: Sequence[LocalJob], out: npt.NDArray[np.float32]) -> list[LocalResult]:
        """Train one job after another; see ``protocol.Kernel``."""
        with grad_mode(self._compiled.loss):
            return [self._trainer(job).train(job, row) for job, row in zip(jobs, out, strict=True)]

    def room(self, jobs: int) -> npt.NDArray[np.float32]:
        """Return the parameters' own memory for one job: once it is trained they are of no more use."""
        if jobs == 1:
            return np.asarray(self._memory().numpy()[None], np.float32)
        return np.empty((jobs, self.n_parameters), np.float32)

    def _memory(self) -> torch.Tensor:
        if self._values is None:
            self._values = torch.zeros(self.n_parameters)
        return self._values

    def _trainer(self, job: LocalJob) -> _Trainer:
        """Return what trains ``job``; all work in the same parameters."""
        by_layers = is_plain(self._spec) and job.private is None and job.correction is None
        if by_layers not in self._trainers:
            rate = self._spec.learning_rate if by_layers else None
            self._trainers[by_layers] = _Trainer(self._compiled, self._spec, self._memory(), rate)
        return self._trainers[by_layers]

    def forward(self, model: Vector, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the module's output for ``x``, in evaluation mode."""
        return self._evaluator.forward(model, x)

    def losses(
        self, model: Vector, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float32]:
        """Return the recipe's loss per example, ``(k,)``, in evaluation mode."""
        return self._evaluator.losses(model, x, y)


class _Trainer:
    """One model's vectors, kept warm; programs by number of examples. With a ``rate`` it takes steps of plain SGD alone, layer by layer."""

    def __init__(
        self, compiled: Compiled, training: TrainingSpec, values: torch.Tensor, rate: float | None
    ) -> None:
        self._compiled, self._spec = compiled, training
        network = compiled.network
        self._bank = Bank(network, 1, _CPU, values) if rate is None else LayerBank(network, values, rate)
        self._descent = Descent(training, self._bank.blocks)
        self._programs = Programs(compiled, self._bank, _CPU)
        self._part = max(1, min(2 * training.batch_size, _CHUNK_VALUES // compiled.network.n_parameters))

    @property
    def gradients(self) -> npt.NDArray[np.float32]:
        """Return the gradients, ``(1, n_parameters)``, as they lie in memory."""
        return np.asarray(self._bank.blocks[0].gradients.numpy(), np.float32)

    def prove(self, recipe: Recipe, parameters: Parameters) -> None:
        """Raise UnsupportedError unless a gradient equals autograd's."""
        prove_gradient(recipe, parameters, self._compiled, self._bank, self._programs, 1)

    def train(self, job: LocalJob, out: Vector) -> LocalResult:
        """Train one job and write its update to ``out``."""
        layout, bank = self._compiled.layout, self._bank
        values = bank.values
        layout.load(job.model, values.numpy())
        anchor = bank.split(values.clone()[None]) if self._descent.anchored else None
        correction = None if job.correction is None else bank.split(layout.inward(job.correction)[None])
        self._descent.begin(anchor, correction)
        x = torch.from_numpy(job.x)
        y = None if job.y is None else torch.from_numpy(job.y)
        target = self._compiled.loss.targets(y, len(x)) if len(x) else None
        if job.private is None:
            result = self._plain(job, x, target)
        else:
            result = self._private(job, job.private, x, target)
        layout.outward(values, out, job.model)
        return result

    def _plain(self, job: LocalJob, x: torch.Tensor, target: torch.Tensor | None) -> LocalResult:
        n, batch = len(x), self._spec.batch_size
        epochs = self._spec.local_epochs if job.epochs is None else job.epochs
        last, steps, total = (epochs - 1) * count_batches(n, batch), 0, 0.0
        for order in epoch_orders(job.order_seed, n, epochs if n else 0):
            for chosen in torch.split(torch.from_numpy(order), batch):
                program, rows = self._load(x, target, chosen)
                program.gradient(rows, 1.0 / len(chosen))
                if steps >= last:
                    total += float(self._compiled.loss.values().sum())
                self._descent.step(1)
                steps += 1
        return LocalResult(total / n if steps else float("nan"), steps)

    def _private(
        self, job: LocalJob, plan: StepPlan, x: torch.Tensor, target: torch.Tensor | None
    ) -> LocalResult:
        clip = torch.full((1, 1), plan.clip_norm_l2, dtype=torch.float64)
        sigma, size = plan.noise_multiplier * plan.clip_norm_l2, self._compiled.network.n_parameters
        stream = job_stream(job.noise_key)
        for _ in range(plan.steps):
            drawn = torch.from_numpy(stream.poisson_batch(len(x), plan.sampling_rate))
            normal_draws(noise_words(stream, size)[None], sigma, self.gradients)
            for chosen in torch.split(drawn, self._part) if len(drawn) else ():
                program, rows = self._load(x, target, chosen)
                program.add_clipped(rows, clip, 1.0)
            self._descent.step(1, self._spec.batch_size)
        return LocalResult(float("nan"), plan.steps)

    def _load(
        self, x: torch.Tensor, target: torch.Tensor | None, chosen: torch.Tensor
    ) -> tuple[Program, torch.Tensor | None]:
        """Return the program for these examples, its input filled, and their targets."""
        program = self._programs.get(1, len(chosen), min(len(x), self._spec.batch_size))
        torch.index_select(x, 0, chosen, out=program.x)
        return program, None if target is None else torch.index_select(target, 0, chosen)
