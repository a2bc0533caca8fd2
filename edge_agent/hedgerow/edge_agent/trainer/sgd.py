"""Training without privacy: mini-batches over the device's examples, optionally with FedProx."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.edge_agent.trainer.local_optimizer import ProximalPull, make_optimizer
from hedgerow.shared.job import TrainingSpec

if TYPE_CHECKING:
    from hedgerow.models.recipe import Recipe, TrainingSet


class PlainResult(msgspec.Struct, frozen=True):
    """What a round without privacy gives: new − old, float32 ``(n_parameters,)``, and the mean loss of the last epoch."""

    delta: Vector
    loss: float
    n_samples: int


class PlainTrainer:
    """A recipe's module and a device's examples, kept warm from round to round."""

    def __init__(self, recipe: Recipe, module: torch.nn.Module, data: TrainingSet) -> None:
        self._recipe = recipe
        self._module = module
        self._x = torch.from_numpy(data.x)
        self._y = None if data.y is None else torch.from_numpy(data.y)
        self.flat = FlatParameters(module)

    def train(self, model: Vector, training: TrainingSpec, seed: tuple[int, ...]) -> PlainResult:
        """Train from ``model`` for the local epochs; ``seed`` orders the batches (and drives torch's dropout)."""
        self.flat.load(model)
        n, loss = len(self._x), float("nan")
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        if parameters and n:
            order = np.random.default_rng(seed)
            torch.manual_seed(int(order.integers(2**63)))
            optimizer = make_optimizer(parameters, training)
            pull = ProximalPull(parameters, training.proximal_mu)
            self._module.train()
            for _ in range(training.local_epochs):
                loss = self._epoch(optimizer, pull, training.batch_size, order)
        return PlainResult(self.flat.minus(model), loss, n)

    def _epoch(
        self, optimizer: torch.optim.Optimizer, pull: ProximalPull, batch: int, order: np.random.Generator
    ) -> float:
        shuffled = torch.from_numpy(order.permutation(len(self._x)))
        total = 0.0
        for chosen in torch.split(shuffled, batch):
            optimizer.zero_grad(set_to_none=True)
            y = None if self._y is None else self._y[chosen]
            losses = self._recipe.loss(self._module, self._x[chosen], y)
            losses.mean().backward()  # type: ignore[no-untyped-call]
            pull.apply()
            optimizer.step()
            total += float(losses.detach().sum())
        return total / len(self._x)
