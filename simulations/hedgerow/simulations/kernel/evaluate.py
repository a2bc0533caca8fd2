"""Outputs and losses of a model without training it, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.packing import Vector

Floats = npt.NDArray[np.float32]
CHUNK = 256
"""Examples taken at once: what their layers give stays small enough for a core's cache."""


_LINE: Final = 64
"""Bytes that a model must begin at a multiple of: libraries round by where values lie, and torch's own memory begins so."""


class _Borrowing:
    """A module whose parameters are a model where it lies, or a copy of it where it does not lie as torch's would."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self._parameters = list(module.parameters())
        if any(parameter.dtype != torch.float32 for parameter in self._parameters):
            raise ValueError("a recipe's parameters must be float32")
        self._size = sum(parameter.numel() for parameter in self._parameters)
        self._own: Vector | None = None
        self._bound: Vector | None = None

    def load(self, model: Vector) -> None:
        """Take ``model``, float32 ``(n,)``, which may change until the next call. Raises ValueError for another length."""
        if model.shape != (self._size,):
            raise ValueError(f"a model of {model.shape} values where the recipe has {self._size}")
        values = model if _lies_well(model) else self._copied(model)
        if self._bound is None or self._bound.ctypes.data != values.ctypes.data:
            self._bind(values)

    def _bind(self, values: Vector) -> None:
        self._bound, whole, at = values, torch.from_numpy(values), 0
        for parameter in self._parameters:
            parameter.data = whole[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()

    def _copied(self, model: Vector) -> Vector:
        if self._own is None:
            self._own = np.asarray(torch.empty(self._size).numpy(), np.float32)
        np.copyto(self._own, model)
        return self._own


def _lies_well(model: Vector) -> bool:
    flags = model.flags
    return (
        model.dtype == np.float32
        and flags.c_contiguous
        and flags.writeable
        and model.ctypes.data % _LINE == 0
    )


class Evaluator:
    """A recipe's module in evaluation mode; made when it is first needed."""

    def __init__(self, recipe: Recipe, parameters: Parameters, device: str = "cpu") -> None:
        self._recipe, self._parameters = recipe, parameters
        self._device = torch.device(device)
        self._made: _Borrowing | None = None

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
            self._made = _Borrowing(self._recipe.build(self._parameters).eval())
        module = self._made.module
        if self._device.type == "cpu":
            self._made.load(model)
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
