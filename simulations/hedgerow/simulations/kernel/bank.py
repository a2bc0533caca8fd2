"""The models that are trained side by side, and their gradients.

Each parameter tensor of all devices is one contiguous block ``(devices, values)``: batched gemms write gradients where they
stay, and a prefix of the devices is a prefix of every block. One device alone is one flat vector.

Where each layer takes its step as soon as its gradient is known (``steps.descend``), gradients of all layers share one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch

from hedgerow.simulations.kernel.network import Conv, Dense, Network

PART: Final = 1 << 18
"""Values of a dense layer's gradient at once (1 MiB): they are still in a core's second cache when they are added."""


class Block(NamedTuple):
    """Values and gradients, float32 ``(devices, size)``; ``at`` is where they begin in a model's vector."""

    at: int
    values: torch.Tensor
    gradients: torch.Tensor


def rows_at_once(layer: Dense | Conv) -> int:
    """Return how many outputs' rows of a dense layer's gradient are held at once, layer by layer; 0 where it is held in full."""
    return max(1, PART // layer.inputs) if isinstance(layer, Dense) and layer.weights > PART else 0


class Bank:
    """Models of up to ``devices`` devices. Vectors ``(…, n_parameters)`` are in the network's order."""

    def __init__(
        self, network: Network, devices: int, device: torch.device, values: torch.Tensor | None = None
    ) -> None:
        """Take memory; ``values`` ``(devices · n_parameters,)`` is some for the models, if there is any."""
        self.device = device
        self._devices = devices
        self._n = network.n_parameters
        self._values = torch.zeros(devices * self._n, device=device) if values is None else values
        self._gradients = torch.zeros(self._room(), device=device)
        self._spans: dict[int, int] = {}
        for layer in network.layers:
            if isinstance(layer, Dense | Conv):
                self._spans[layer.at] = layer.weights
                if layer.bias:
                    self._spans[layer.at + layer.weights] = layer.outputs
        self.blocks = self._blocks()

    def _room(self) -> int:
        return self._devices * self._n

    def _blocks(self) -> tuple[Block, ...]:
        whole = {0: self._n} if self._devices == 1 else self._spans
        return tuple(self.block(at, size) for at, size in whole.items())

    def block(self, at: int, size: int) -> Block:
        """Return the block of one parameter tensor."""
        part = slice(at * self._devices, (at + size) * self._devices)
        shape = (self._devices, size)
        return Block(at, self._values[part].view(shape), self._gradients[part].view(shape))

    @property
    def values(self) -> torch.Tensor:
        """Return all models' memory, flat."""
        return self._values

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
        out = torch.empty(models.shape, device=self.device)
        for block in self.blocks:
            torch.sub(block.values[: len(models)], _part(models, block), out=_part(out, block))
        return out

    def split(self, vectors: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return ``vectors`` ``(k, n_parameters)`` cut like the blocks."""
        return [_part(vectors, block) for block in self.blocks]


class LayerBank(Bank):
    """One device's model on the CPU, and room for the gradient of one layer at a time, the next one's over the last one's.

    Each layer takes its step of plain SGD, ``rate`` times its gradient, before the next one's is made. There are no ``blocks``. Of
    a layer that ``rows_at_once`` cuts up, the block's gradient of weights has their shape alone, and is not to be written.
    """

    def __init__(self, network: Network, values: torch.Tensor, rate: float) -> None:
        """Lay the model to ``values``, float32 ``(n_parameters,)``."""
        self.rate = rate
        self._layers = {layer.at: layer for layer in network.layers if isinstance(layer, Dense | Conv)}
        super().__init__(network, 1, values.device, values)

    def _room(self) -> int:
        return max(_weights_at_once(layer) + layer.outputs for layer in self._layers.values())

    def _blocks(self) -> tuple[Block, ...]:
        return ()

    def block(self, at: int, size: int) -> Block:
        """Return the block of one parameter tensor, or of a layer's weights and biases together."""
        values = self._values[at : at + size].view(1, size)
        layer = self._layers.get(at)
        if layer is None:
            return Block(at, values, self.biases(size))
        if rows_at_once(layer):
            return Block(at, values, self._gradients[:1].view(1, 1).expand(1, size))
        start = self._gradients.numel() - layer.outputs - layer.weights
        return Block(at, values, self._gradients[start : start + size].view(1, size))

    def biases(self, size: int) -> torch.Tensor:
        """Return where the gradient of so many biases is, ``(1, size)``: at the end, right after that of the weights."""
        return self._gradients[self._gradients.numel() - size :].view(1, size)

    def rows(self, count: int, inputs: int) -> torch.Tensor:
        """Return where some rows of a dense layer's gradient are, ``(1, count, inputs)``."""
        return self._gradients[: count * inputs].view(1, count, inputs)


def _weights_at_once(layer: Dense | Conv) -> int:
    rows = rows_at_once(layer)
    return rows * layer.inputs if rows and isinstance(layer, Dense) else layer.weights


def _part(vectors: torch.Tensor, block: Block) -> torch.Tensor:
    return vectors[:, block.at : block.at + block.values.shape[1]]
