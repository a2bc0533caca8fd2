"""A recipe compiled for kernels: its network, its loss, the order of its parameters. What both fast kernels start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import torch

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.simulations.kernel.layout import Layout
from hedgerow.simulations.kernel.losses import OutputLoss, find_loss
from hedgerow.simulations.kernel.network import Network, read_network

CLIP_SLACK: Final = 1 - 1e-6
"""As in ``PrivateOptimizer``: rounding must not exceed the clip norm."""


class Compiled(NamedTuple):
    """What kernels need of a recipe; the module that was read is not kept."""

    network: Network
    loss: OutputLoss

    @property
    def layout(self) -> Layout:
        """Return the way between the module's order of parameters and the kernels'."""
        return self.network.layout


def compile_recipe(recipe: Recipe, parameters: Parameters) -> Compiled:
    """Return ``recipe`` compiled. Raises UnsupportedError for a layer or a loss that has no kernel."""
    module = recipe.build(parameters)
    shape = tuple(recipe.input_spec(parameters).shape)
    network = read_network(module, shape)
    with torch.no_grad():
        output = tuple(module(torch.zeros((1, *shape))).shape[1:])
    if output != network.output_shape:
        raise UnsupportedError(f"the module gives {output} where its layers give {network.output_shape}")
    return Compiled(network, find_loss(recipe, shape, output))


@contextmanager
def grad_mode(loss: OutputLoss) -> Iterator[None]:
    """The context to train in: the cheapest that the loss allows, and numpy as silent about values that are not finite as torch."""
    with torch.inference_mode() if loss.plain else torch.no_grad(), np.errstate(all="ignore"):
        yield
