"""Outputs and losses of a model without training it, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.models.recipe import Parameters, Recipe

Floats = npt.NDArray[np.float32]
CHUNK = 256
"""Examples taken at once: what their layers give stays small enough for a core's cache."""


class Evaluator:
    """A recipe's module in evaluation mode, its parameters in one buffer; made when it is first needed."""

    def __init__(self, recipe: Recipe, parameters: Parameters, device: str = "cpu") -> None:
        self._recipe, self._parameters = recipe, parameters
        self._device = torch.device(device)
        self._made: tuple[torch.nn.Module, FlatParameters] | None = None

    def forward(self, model: Vector, x: Floats) -> Floats:
        """Return the output ``(k, *output)`` for ``x`` ``(k, *input)``."""
        module = self._load(model)
        with torch.no_grad():
            parts = [module(part).cpu() for part, _ in self._parts(x, None)]
            return np.asarray(torch.cat(parts).numpy(), np.float32)

    def losses(self, model: Vector, x: Floats, y: npt.NDArray[np.int64] | None) -> Floats:
        """Return the recipe's loss of each example, float32 ``(k,)``; empty without examples."""
        module = self._load(model)
        if len(x) == 0:
            return np.empty(0, np.float32)
        with torch.no_grad():
            parts = [self._recipe.loss(module, a, b).cpu() for a, b in self._parts(x, y)]
            return np.asarray(torch.cat(parts).numpy(), np.float32)

    def _load(self, model: Vector) -> torch.nn.Module:
        """Return the module with ``model`` in it."""
        if self._made is None:
            made = self._recipe.build(self._parameters)
            self._made = made.eval(), FlatParameters(made)
        module, flat = self._made
        if self._device.type == "cpu":
            flat.load(model)
        else:
            torch.nn.utils.vector_to_parameters(
                torch.from_numpy(np.array(model)).to(self._device), module.to(self._device).parameters()
            )
        return module

    def _parts(
        self, x: Floats, y: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yield the examples in chunks; one empty chunk if there are none, so that the output has its shape."""
        for start in range(0, max(1, len(x)), CHUNK):
            part = slice(start, start + CHUNK)
            labels = None if y is None else torch.from_numpy(y[part]).to(self._device)
            yield torch.from_numpy(x[part]).to(self._device), labels
