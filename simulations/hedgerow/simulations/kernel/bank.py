"""The models that are trained side by side, and their gradients.

Each parameter tensor of all devices is one contiguous block ``(devices, values)``: batched gemms write gradients where they
stay, and a prefix of the devices is a prefix of every block. One device alone is one flat vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from hedgerow.simulations.kernel.network import Conv, Dense, Network


class Block(NamedTuple):
    """Values and gradients, float32 ``(devices, size)``; ``at`` is where they begin in a model's vector."""

    at: int
    values: torch.Tensor
    gradients: torch.Tensor


class Bank:
    """Models of up to ``devices`` devices. Vectors ``(…, n_parameters)`` are in the network's order."""

    def __init__(self, network: Network, devices: int, device: torch.device) -> None:
        self.device = device
        self._devices = devices
        self._n = network.n_parameters
        self._values = torch.zeros(devices * self._n, device=device)
        self._gradients = torch.zeros(devices * self._n, device=device)
        self._spans: dict[int, int] = {}
        for layer in network.layers:
            if isinstance(layer, Dense | Conv):
                self._spans[layer.at] = layer.weights
                if layer.bias:
                    self._spans[layer.at + layer.weights] = layer.outputs
        whole = {0: self._n} if devices == 1 else self._spans
        self.blocks = tuple(self.block(at, size) for at, size in whole.items())

    def block(self, at: int, size: int) -> Block:
        """Return the block of one parameter tensor."""
        part = slice(at * self._devices, (at + size) * self._devices)
        shape = (self._devices, size)
        return Block(at, self._values[part].view(shape), self._gradients[part].view(shape))

    def load(self, models: torch.Tensor) -> None:
        """Set the first ``len(models)`` devices' models, ``(k, n_parameters)``."""
        for block in self.blocks:
            block.values[: len(models)].copy_(_part(models, block))

    def set_gradients(self, vectors: torch.Tensor) -> None:
        """Set the first devices' gradients to ``vectors`` ``(k, n_parameters)``."""
        for block in self.blocks:
            block.gradients[: len(vectors)].copy_(_part(vectors, block))

    def gradients(self, devices: int) -> torch.Tensor:
        """Return a copy of the first ``devices``' gradients, ``(devices, n_parameters)``."""
        return torch.cat([block.gradients[:devices] for block in self.blocks], dim=1)

    def minus(self, models: torch.Tensor) -> torch.Tensor:
        """Return values − ``models`` for the first ``len(models)`` devices, ``(k, n_parameters)``."""
        out = torch.empty_like(models)
        for block in self.blocks:
            torch.sub(block.values[: len(models)], _part(models, block), out=_part(out, block))
        return out

    def split(self, vectors: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return ``vectors`` ``(k, n_parameters)`` cut like the blocks."""
        return [_part(vectors, block) for block in self.blocks]


def _part(vectors: torch.Tensor, block: Block) -> torch.Tensor:
    return vectors[:, block.at : block.at + block.values.shape[1]]
