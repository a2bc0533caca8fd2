"""A module's parameters as one flat float32 vector, in the order of ``module.parameters()``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Vector = npt.NDArray[np.float32]


class FlatParameters:
    """Binds a module's parameters to one buffer, so that loading a model and taking a difference are one pass each."""

    def __init__(self, module: torch.nn.Module) -> None:
        """Rebind the parameters of ``module``. Raises ValueError unless all are float32."""
        parameters = list(module.parameters())
        if any(parameter.dtype != torch.float32 for parameter in parameters):
            raise ValueError("a recipe's parameters must be float32")
        self._buffer = torch.empty(sum(parameter.numel() for parameter in parameters), dtype=torch.float32)
        offset = 0
        for parameter in parameters:
            view = self._buffer[offset : offset + parameter.numel()].view(parameter.shape)
            view.copy_(parameter.detach())
            parameter.data = view
            offset += parameter.numel()

    @property
    def size(self) -> int:
        """Number of values."""
        return self._buffer.numel()

    def load(self, vector: Vector) -> None:
        """Set all parameters from ``vector``, float32 ``(size,)``. Raises ValueError for another length."""
        if vector.shape != (self.size,):
            raise ValueError(f"a model of {vector.shape} values where the recipe has {self.size}")
        np.copyto(self._buffer.numpy(), vector)

    def values(self) -> Vector:
        """Return a copy of all parameters, float32 ``(size,)``."""
        copied: Vector = self._buffer.numpy().copy()
        return copied

    def minus(self, vector: Vector) -> Vector:
        """Return parameters − ``vector``, float32 ``(size,)``."""
        difference: Vector = self._buffer.numpy() - vector
        return difference
