"""Recipes and jobs for kernels: the shipped recipes made small, recipes sketched from any module, and gradients by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from tests.support.tiny_recipe import TinyRecipe

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.models.recipe import Recipe, find_recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.shared.specs import TensorSpec
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.protocol import Kernel, KernelName, LocalJob, LocalResult

Floats = np.ndarray[Any, np.dtype[np.float32]]
SMALL: dict[str, dict[str, Any]] = {
    "anomaly-autoencoder": {"rows": 4, "hidden": 8, "code": 3},
    "digits-cnn": {"filters": 4, "width": 8},
    "image-cnn": {"height": 8, "width": 8, "classes": 4, "filters": 4, "dense": 8},
    "mlp": {"inputs": 12, "hidden": [8, 6], "classes": 5},
}


class SketchRecipe(TinyRecipe):
    """A classification (cross entropy) or regression (squared sum of outputs) over any module."""

    name = "sketch"

    def __init__(
        self, make: Callable[[], torch.nn.Module], shape: tuple[int, ...], classes: int | None = None
    ) -> None:
        self._make, self._shape, self._classes = make, shape, classes
        self.task: Literal["anomaly", "classification"] = "anomaly" if classes is None else "classification"

    def input_spec(self, parameters: dict[str, Any]) -> TensorSpec:
        return TensorSpec("sketch", "float32", self._shape, "scores")

    def output_spec(self, parameters: dict[str, Any]) -> TensorSpec:
        return TensorSpec("out", "float32", (self._classes or 1,), "scores")

    def build(self, parameters: dict[str, Any]) -> torch.nn.Module:
        torch.manual_seed(11)
        return self._make()

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        if self._classes is None or y is None:
            squared: torch.Tensor = module(x).flatten(1).square().sum(dim=1)
            return squared
        return torch.nn.functional.cross_entropy(module(x), y, reduction="none")


def small(name: str) -> tuple[Recipe, dict[str, Any]]:
    """Return a shipped recipe with parameters that make it small."""
    recipe = find_recipe(name)
    return recipe, recipe.check(SMALL[name])


def start(recipe: Recipe, parameters: dict[str, Any], seed: int = 1) -> Floats:
    """Return the recipe's own untrained model, the same for the same seed."""
    torch.manual_seed(seed)
    return FlatParameters(recipe.build(parameters)).values()


def make_job(
    recipe: Recipe, parameters: dict[str, Any], model: Floats, n: int, seed: int, **changes: Any
) -> LocalJob:
    """Return a job over ``n`` random examples; ``seed`` makes them and orders the batches."""
    rng = np.random.default_rng((seed, n))
    x = rng.standard_normal((n, *recipe.input_spec(parameters).shape), dtype=np.float32)
    y = None
    if recipe.task == "classification":
        y = rng.integers(0, recipe.output_spec(parameters).shape[-1], n)
    return LocalJob(model, x, y, (5, 1, seed), **changes)


def trained(kernel: Kernel, jobs: Sequence[LocalJob]) -> tuple[Floats, list[LocalResult]]:
    """Return updates ``(len(jobs), n)`` and results."""
    out = np.full((len(jobs), kernel.n_parameters), np.nan, np.float32)
    return out, kernel.train(jobs, out)


def kernels(
    names: Sequence[KernelName], recipe: Recipe, parameters: dict[str, Any], **training: Any
) -> list[Kernel]:
    """Return kernels of one training block: batches of 4, SGD at 0.05 unless said otherwise."""
    spec = TrainingSpec(**{"batch_size": 4, "learning_rate": 0.05, **training})
    return [make_kernel(name, recipe, parameters, spec) for name in names]


def each_gradient(recipe: Recipe, parameters: dict[str, Any], job: LocalJob) -> np.ndarray[Any, Any]:
    """Return every example's gradient at the job's model by autograd, one at a time, float64 ``(k, n)``."""
    module = recipe.build(parameters)
    FlatParameters(module).load(job.model)
    rows = []
    for n in range(len(job.x)):
        y = None if job.y is None else torch.from_numpy(job.y[n : n + 1])
        loss = recipe.loss(module, torch.from_numpy(job.x[n : n + 1]), y).sum()
        found = torch.autograd.grad(loss, list(module.parameters()))
        rows.append(torch.cat([part.reshape(-1) for part in found]).double().numpy())
    return np.array(rows)
