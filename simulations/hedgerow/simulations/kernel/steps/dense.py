"""Dense layers as batched gemms over the devices."""

from __future__ import annotations

import torch

from hedgerow.simulations.kernel.network import Dense
from hedgerow.simulations.kernel.products import product
from hedgerow.simulations.kernel.steps.step import Place, Tensors, squares


class DenseStep:
    """``y = x Wᵀ + b``. One example's gradient is an outer product, so its norm is a product of norms (Goodfellow 2015)."""

    def __init__(self, layer: Dense, place: Place, x: torch.Tensor) -> None:
        self._layer, self._place, self._x = layer, place, x
        self._x3 = x.view(place.devices, place.rows, layer.inputs)
        self._own = Tensors(layer, place, layer.outputs, layer.inputs)
        self.y = place.take("y", layer.outputs)
        self._y3 = self.y.view(place.devices, place.rows, layer.outputs)
        wt = self._own.w.transpose(1, 2)
        self._outputs = product(self._x3, wt, self._y3, self._own.spread(place.rows))

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._gy = gy
        self._gy3 = gy.view(self._y3.shape)
        self._gyt = self._gy3.transpose(1, 2)
        self._weights = product(self._gyt, self._x3, self._own.gw)
        if self._layer.first:
            return None
        gx = self._place.take("gx", self._layer.inputs)
        self._inputs = product(self._gy3, self._own.w, gx.view(self._x3.shape))
        return gx

    def forward(self) -> None:
        """See ``Step``."""
        self._outputs()

    def back(self) -> None:
        """See ``Step``."""
        self._inputs()

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        self._weights()
        if self._own.gb is not None:
            torch.sum(self._gy3, 1, out=self._own.gb)

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        inputs = squares(self._x)
        if self._own.b is not None:
            inputs.add_(1.0)
        total.addcmul_(inputs, squares(self._gy))

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``OwnerStep``. Scales the gradient of ``y`` in place: it is not needed after this."""
        self._gy3.mul_(factor[:, :, None])
        self._own.gw.baddbmm_(self._gyt, self._x3)
        if self._own.gb is not None:
            self._own.gb.add_(self._gy3.sum(1))

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._x[bad] = 0.0
        self._gy[bad] = 0.0
