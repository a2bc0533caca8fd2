"""What every layer's step can do, for one number of examples; dense layers and ReLU."""

from __future__ import annotations

from typing import Protocol

import torch

from hedgerow.simulations.kernel.explicit.buffers import Buffers
from hedgerow.simulations.kernel.network import Dense


class Step(Protocol):
    """One layer bound to its buffers. Inputs and outputs are float32 ``(n, values)``, contiguous, channels last."""

    y: torch.Tensor

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """Take where the gradient of ``y`` will be; return where that of the input will be, None if it is not wanted."""

    def forward(self) -> None:
        """Fill ``y``."""

    def back(self) -> None:
        """Fill the gradient of the input."""

    def gradient(self) -> None:
        """Fill the gradients of this layer's parameters: the sum over the batch."""

    def add_norms(self, total: torch.Tensor) -> None:
        """Add to ``total``, float64 ``(n,)``, the square of each example's gradient norm over this layer's parameters."""

    def add_weighted(self, factor: torch.Tensor) -> None:
        """Add to this layer's gradients Σ factor · gradient over examples, ``factor`` float32 ``(n,)``."""

    def scrub(self, bad: torch.Tensor) -> None:
        """Set what examples ``bad``, bool ``(n,)``, left here to zero: their factor is zero, and 0 · NaN is not."""


class DenseStep:
    """``y = x Wᵀ + b``. One example's gradient is an outer product, so its norm is a product of norms (Goodfellow 2015)."""

    def __init__(
        self,
        layer: Dense,
        place: str,
        x: torch.Tensor,
        model: torch.Tensor,
        grads: torch.Tensor,
        buffers: Buffers,
    ) -> None:
        self._layer, self._place, self._x, self._buffers = layer, place, x, buffers
        self._w, self._b = _parts(layer, model)
        self._gw, self._gb = _parts(layer, grads)
        self._wt = self._w.t()
        self.y = buffers.take(f"{place}.y", len(x), layer.outputs)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._gy, self._gyt = gy, gy.t()
        if self._layer.first:
            return None
        self._gx = self._buffers.take(f"{self._place}.gx", len(self._x), self._layer.inputs)
        return self._gx

    def forward(self) -> None:
        """See ``Step``."""
        if self._b is None:
            torch.mm(self._x, self._wt, out=self.y)
        else:
            torch.addmm(self._b, self._x, self._wt, out=self.y)

    def back(self) -> None:
        """See ``Step``."""
        torch.mm(self._gy, self._w, out=self._gx)

    def gradient(self) -> None:
        """See ``Step``."""
        torch.mm(self._gyt, self._x, out=self._gw)
        if self._gb is not None:
            torch.sum(self._gy, 0, out=self._gb)

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``Step``."""
        inputs = torch.linalg.vector_norm(self._x, dim=1, dtype=torch.float64).square_()
        outputs = torch.linalg.vector_norm(self._gy, dim=1, dtype=torch.float64).square_()
        if self._b is not None:
            inputs.add_(1.0)
        total.addcmul_(inputs, outputs)

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``Step``. Scales the gradient of ``y`` in place: it is not needed after this."""
        self._gy.mul_(factor[:, None])
        self._gw.addmm_(self._gyt, self._x)
        if self._gb is not None:
            self._gb.add_(self._gy.sum(0))

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``Step``."""
        self._x[bad] = 0.0
        self._gy[bad] = 0.0


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

    def gradient(self) -> None:
        """See ``Step``."""

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``Step``."""

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``Step``."""

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``Step``."""


def _parts(layer: Dense, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    end = layer.at + layer.inputs * layer.outputs
    weights = flat[layer.at : end].view(layer.outputs, layer.inputs)
    return weights, flat[end : end + layer.outputs] if layer.bias else None
