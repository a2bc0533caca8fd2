"""A recipe compiled for kernels: its network, its loss, the order of its parameters. What both fast kernels start from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.simulations.kernel.losses import OutputLoss, find_loss
from hedgerow.simulations.kernel.network import Network, read_network
from hedgerow.simulations.kernel.protocol import Vector

CLIP_SLACK: Final = 1 - 1e-6
"""As in ``PrivateOptimizer``: rounding must not exceed the clip norm."""


class Layout:
    """Moves vectors between the module's order and the kernels'."""

    def __init__(self, order: npt.NDArray[np.int64]) -> None:
        self.plain = bool(np.array_equal(order, np.arange(len(order))))
        self._order = order
        self._order_tensor = torch.from_numpy(order)
        self._back = np.argsort(order)

    def inward(self, vector: Vector) -> torch.Tensor:
        """Return a copy of a module's vector, float32 ``(n,)``, in the kernels' order. Raises ValueError for another length."""
        if vector.shape != self._order.shape:
            raise ValueError(f"a model of {vector.shape} values where the recipe has {self._order.size}")
        return torch.from_numpy(np.array(vector) if self.plain else vector[self._order])

    def inward_tensor(self, vector: torch.Tensor) -> torch.Tensor:
        """Return ``vector`` ``(k, n)`` in the kernels' order."""
        return vector if self.plain else torch.gather(vector, 1, self._order_tensor.expand(len(vector), -1))

    def outward(self, vector: torch.Tensor, out: Vector) -> None:
        """Write the kernels' ``vector`` to ``out`` in the module's order."""
        if self.plain:
            np.copyto(out, vector.numpy())
        else:
            np.take(vector.numpy(), self._back, out=out, mode="clip")

    def outward_rows(self, vectors: torch.Tensor, out: npt.NDArray[np.float32], rows: list[int]) -> None:
        """Write ``vectors`` ``(k, n)`` to the ``rows`` of ``out``, in the module's order."""
        found = vectors.cpu().numpy()
        for row, vector in zip(rows, found, strict=True):
            self.outward(torch.from_numpy(vector), out[row])


class Compiled(NamedTuple):
    """``module`` is the one that was read, untrained."""

    module: torch.nn.Module
    network: Network
    loss: OutputLoss
    layout: Layout


def compile_recipe(recipe: Recipe, parameters: Parameters) -> Compiled:
    """Return ``recipe`` compiled. Raises UnsupportedError for a layer or a loss that has no kernel."""
    module = recipe.build(parameters)
    shape = tuple(recipe.input_spec(parameters).shape)
    network = read_network(module, shape)
    with torch.no_grad():
        output = tuple(module(torch.zeros((1, *shape))).shape[1:])
    if output != network.output_shape:
        raise UnsupportedError(f"the module gives {output} where its layers give {network.output_shape}")
    return Compiled(module, network, find_loss(recipe, shape, output), Layout(network.order))


def grad_mode(loss: OutputLoss) -> AbstractContextManager[object]:
    """Return the context to train in: the cheapest that the loss allows."""
    return torch.inference_mode() if loss.plain else torch.no_grad()
