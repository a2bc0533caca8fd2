"""DP-SGD on the device: Poisson draws, per-example gradients by Opacus, clipping and noise, a fixed number of steps.

What is returned is the sum of noisy steps and nothing else: no loss, no count, no early stop. How long a round takes
depends on how many examples were drawn, and whoever can time the device may learn something of that; the privacy
report says so.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from opacus import GradSampleModule

from hedgerow.edge_agent.trainer.codes import Code, DeclinedError
from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.edge_agent.trainer.local_optimizer import ProximalPull, make_optimizer
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.edge_agent.trainer.private_optimizer import PrivateOptimizer
from hedgerow.shared.job import TrainingSpec
from hedgerow.shared.privacy.noise import SystemRandom

if TYPE_CHECKING:
    from hedgerow.models.recipe import Recipe, TrainingSet

_CHUNK_VALUES = 16 * 1024 * 1024
"""Per-example gradients held at once (64 MiB): a large batch is taken in parts, its sum is the same."""


class PrivateTrainer:
    """A recipe's module and a device's examples, wrapped for per-example gradients and kept warm."""

    def __init__(self, recipe: Recipe, module: torch.nn.Module, data: TrainingSet) -> None:
        """Wrap ``module``. Raises DeclinedError if it has buffers (batch statistics mix examples) or layers
        for which per-example gradients are not defined.
        """
        if any(True for _ in module.buffers()):
            raise DeclinedError(
                Code.UNSUPPORTED, "the recipe has buffers (BatchNorm?): not allowed with privacy"
            )
        self._recipe = recipe
        self._x = torch.from_numpy(data.x)
        self._y = None if data.y is None else torch.from_numpy(data.y)
        self.flat = FlatParameters(module)
        try:
            self._module = GradSampleModule(module, loss_reduction="sum")
        except NotImplementedError as error:
            raise DeclinedError(
                Code.UNSUPPORTED, f"no per-example gradients for this recipe: {error}"
            ) from error
        self._random = SystemRandom()
        # Inputs need no gradient here; Opacus's hooks work all the same, as torch warns once per layer.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")

    def train(self, model: Vector, training: TrainingSpec, plan: StepPlan) -> Vector:
        """Take ``plan.steps`` noisy steps from ``model``; return new − old, float32 ``(n_parameters,)``.

        (ε, δ) per example, add or remove one, as ``plan`` composes. Optimizer state, FedProx's pull and the
        division are post-processing of noisy sums.
        """
        self.flat.load(model)
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        if not parameters:
            return self.flat.minus(model)
        optimizer = PrivateOptimizer(
            make_optimizer(parameters, training),
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip_norm_l2,
            expected_batch_size=training.batch_size,
            random=self._random,
        )
        pull = ProximalPull(parameters, training.proximal_mu)
        self._module.train()
        for _ in range(plan.steps):
            self._step(optimizer, pull, plan.sampling_rate)
        optimizer.zero_grad(set_to_none=True)
        return self.flat.minus(model)

    def _step(self, optimizer: PrivateOptimizer, pull: ProximalPull, rate: float) -> None:
        drawn = torch.from_numpy(self._random.poisson_batch(len(self._x), rate))
        chunk = max(1, _CHUNK_VALUES // max(1, self.flat.size))
        for part in torch.split(drawn, chunk) if len(drawn) else (drawn,):
            self._gradients(part)
            optimizer.clip_and_accumulate()
            for parameter in optimizer.params:
                parameter.grad_sample = None
        optimizer.add_noise()
        optimizer.scale_grad()
        pull.apply()
        optimizer.original_optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _gradients(self, part: torch.Tensor) -> None:
        """Leave each parameter's per-example gradients, ``(len(part), *shape)``, in ``grad_sample``."""
        if len(part) == 0:
            for parameter in self._module.parameters():
                parameter.grad_sample = torch.zeros((0, *parameter.shape))
            return
        y = None if self._y is None else self._y[part]
        self._recipe.loss(self._module, self._x[part], y).sum().backward()  # type: ignore[no-untyped-call]
