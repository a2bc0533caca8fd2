"""Local training as people write it in PyTorch: what kernels are measured against, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.batches import epoch_orders
from hedgerow.simulations.kernel.protocol import LocalJob


class PlainLoop:
    """``zero_grad``, loss, ``backward``, ``step``, batch by batch. Plain jobs with SGD alone."""

    def __init__(self, recipe: Recipe, parameters: Parameters, training: TrainingSpec) -> None:
        self._recipe, self._spec = recipe, training
        self._module = recipe.build(parameters)

    def train(self, jobs: Sequence[LocalJob], out: npt.NDArray[np.float32]) -> None:
        """Train every job and write new − old to ``out``, float32 ``(len(jobs), n)``."""
        for job, row in zip(jobs, out, strict=True):
            vector_to_parameters(torch.from_numpy(np.array(job.model)), self._module.parameters())
            self._one(job)
            row[:] = parameters_to_vector(self._module.parameters()).detach().numpy() - job.model

    def _one(self, job: LocalJob) -> None:
        spec = self._spec
        x, y = torch.from_numpy(job.x), None if job.y is None else torch.from_numpy(job.y)
        optimizer = torch.optim.SGD(self._module.parameters(), lr=spec.learning_rate, momentum=spec.momentum)
        for order in epoch_orders(job.order_seed, len(x), spec.local_epochs):
            for chosen in torch.split(torch.from_numpy(order), spec.batch_size):
                optimizer.zero_grad()
                losses = self._recipe.loss(self._module, x[chosen], None if y is None else y[chosen])
                losses.mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
