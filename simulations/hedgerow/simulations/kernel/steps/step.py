"""What every layer's step can do, for ``devices · rows`` examples; ReLU, which is most of nothing."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.buffers import Buffers
from hedgerow.simulations.kernel.network import Conv, Dense


class Place(NamedTuple):
    """Where a step works: the first ``devices`` of the bank, ``rows`` examples each; ``name`` tells its buffers from others'."""

    name: str
    devices: int
    rows: int
    bank: Bank
    buffers: Buffers

    @property
    def examples(self) -> int:
        """How many there are in all."""
        return self.devices * self.rows

    def take(self, what: str, *shape: int) -> torch.Tensor:
        """Return a buffer ``(examples, *shape)``."""
        return self.buffers.take(f"{self.name}.{what}", self.examples, *shape)


class Step(Protocol):
    """One layer bound to its buffers. Inputs and outputs are float32 ``(examples, values)``, contiguous, channels last."""

    y: torch.Tensor

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """Take where the gradient of ``y`` will be; return where that of the input will be, None if it is not wanted."""

    def forward(self) -> None:
        """Fill ``y``."""

    def back(self) -> None:
        """Fill the gradient of the input."""


class OwnerStep(Step, Protocol):
    """A layer with parameters."""

    def gradient(self) -> None:
        """Fill the gradients of this layer's parameters: the sum over a device's rows."""

    def add_norms(self, total: torch.Tensor) -> None:
        """Add to ``total``, float64 ``(examples,)``, the square of each example's gradient norm over this layer's parameters."""

    def add_weighted(self, factor: torch.Tensor) -> None:
        """Add to this layer's gradients Σ factor · gradient over a device's rows, ``factor`` float32 ``(devices, rows)``."""

    def scrub(self, bad: torch.Tensor) -> None:
        """Set what examples ``bad``, bool ``(examples,)``, left here to zero: their factor is zero, and 0 · NaN is not."""


class Tensors:
    """A layer's weights ``(devices, *shape)`` and biases ``(devices, outputs)``, and their gradients, of the first devices."""

    def __init__(self, layer: Dense | Conv, place: Place, *shape: int) -> None:
        weights = place.bank.block(layer.at, layer.weights)
        self.w, self.gw = (v[: place.devices].view(-1, *shape) for v in (weights.values, weights.gradients))
        self.b: torch.Tensor | None = None
        self.gb: torch.Tensor | None = None
        if layer.bias:
            biases = place.bank.block(layer.at + layer.weights, layer.outputs)
            self.b, self.gb = (v[: place.devices] for v in (biases.values, biases.gradients))

    def spread(self, rows: int) -> torch.Tensor | None:
        """Return the biases for each of ``rows`` rows, ``(devices, rows, outputs)``, a view."""
        return None if self.b is None else self.b[:, None, :].expand(-1, rows, -1)


def squares(x: torch.Tensor) -> torch.Tensor:
    """Return each row's sum of squares, float64 ``(rows,)``, of float32 ``(rows, values)``."""
    norms: torch.Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return norms.square_()


class ReluStep:
    """max(0, x), in place; so is its gradient."""

    def __init__(self, x: torch.Tensor) -> None:
        self.y = x

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._gy = gy
        return gy

    def forward(self) -> None:
        """See ``Step``."""
        self.y.clamp_min_(0.0)

    def back(self) -> None:
        """See ``Step``."""
        torch.ops.aten.threshold_backward.grad_input(self._gy, self.y, 0, grad_input=self._gy)
