"""Convolutions: what their steps share, and the first layer's, whose input nobody wants the gradient of."""

from __future__ import annotations

import torch

from hedgerow.simulations.kernel.network import Conv
from hedgerow.simulations.kernel.products import product
from hedgerow.simulations.kernel.steps.step import Place, Tensors, squares


class ConvStep:
    """What all kinds share: the output, the sum for biases, and per-example gradients kept between norms and sum."""

    def __init__(self, layer: Conv, place: Place, positions: int, *weights: int) -> None:
        self._layer, self._place, self._positions = layer, place, positions
        self._own = Tensors(layer, place, *weights)
        self.y = place.take("y", positions * layer.filters)
        self._y3 = self._by_device(self.y)
        self._bias = self._own.spread(self._y3.shape[1])
        self._each = self._each_bias = torch.empty(0)

    def _by_device(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.view(self._place.devices, self._place.rows * self._positions, self._layer.filters)

    def _watch(self, gy: torch.Tensor) -> None:
        self._gy3 = self._by_device(gy)
        self._gy_each = gy.view(self._place.examples, self._positions, self._layer.filters)

    def _sum_biases(self) -> None:
        if self._own.gb is not None:
            torch.sum(self._gy3, 1, out=self._own.gb)

    def _norms_of(self, each: torch.Tensor, total: torch.Tensor) -> None:
        """Take one gradient of the weights per example, ``(examples, …)``."""
        self._norms_of_weights(each, total)
        self._norms_of_biases(total)

    def _norms_of_weights(self, each: torch.Tensor, total: torch.Tensor) -> None:
        self._each = each.view(self._place.examples, -1)
        total.add_(squares(self._each))

    def _norms_of_biases(self, total: torch.Tensor) -> None:
        if self._own.gb is not None:
            self._each_bias = self._gy_each.sum(1)
            total.add_(squares(self._each_bias))

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._add_weighted_biases(factor)
        self._add_to_weights(torch.bmm(factor[:, None, :], self._each.view(*factor.shape, -1)))

    def _add_to_weights(self, found: torch.Tensor) -> None:
        """Add one sum of weights' gradients a device, as they are kept for each example."""
        self._own.gw.add_(found.view(self._own.gw.shape))

    def _add_weighted_biases(self, factor: torch.Tensor) -> None:
        if self._own.gb is not None:
            each = self._each_bias.view(*factor.shape, -1)
            self._own.gb[:, None, :].baddbmm_(factor[:, None, :], each)

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._each[bad] = 0.0
        self._scrub_biases(bad)

    def _scrub_biases(self, bad: torch.Tensor) -> None:
        if self._own.gb is not None:
            self._each_bias[bad] = 0.0


class FirstConvStep(ConvStep):
    """The first layer. Its unfolded input has one row per tap, so that copying it moves whole rows of an image."""

    def __init__(self, layer: Conv, place: Place, x: torch.Tensor) -> None:
        super().__init__(layer, place, layer.out[0] * layer.out[1], layer.taps, layer.filters)
        devices, rows = place.devices, place.rows
        (high, wide), (above, left) = layer.size, layer.padding
        tall, broad = high + 2 * above, wide + 2 * left
        padded = place.take("padded", layer.channels, tall, broad)
        self._inside = padded[:, :, above : above + high, left : left + wide]
        if layer.last:
            self._x = x.view(-1, high, wide, layer.channels).permute(0, 3, 1, 2)
        else:
            self._x = x.view(-1, layer.channels, high, wide)
        plane = tall * broad
        image = layer.channels * plane
        self._taps = padded.as_strided(
            (devices, layer.channels, *layer.kernel, rows, *layer.out),
            (rows * image, plane, broad, 1, image, layer.stride[0] * broad, layer.stride[1]),
        )
        flat = place.buffers.block(f"{place.name}.taps", place.examples, layer.taps * self._positions)
        self._unfolded = flat.view(self._taps.shape)
        self._rows = flat.view(devices, layer.taps, rows * self._positions)
        self._outputs = product(self._rows.transpose(1, 2), self._own.w, self._y3, self._bias)
        self._by_example = flat.view(devices, layer.taps, rows, self._positions).transpose(1, 2)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``: nobody wants the gradient of the examples."""
        self._watch(gy)
        self._weights = product(self._rows, self._gy3, self._own.gw)
        return None

    def forward(self) -> None:
        """See ``Step``."""
        self._inside.copy_(self._x)
        self._unfolded.copy_(self._taps)
        self._outputs()

    def back(self) -> None:
        """See ``Step``: nothing to do."""

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        self._weights()
        self._sum_biases()

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        gy = self._gy_each.view(self._place.devices, self._place.rows, self._positions, -1)
        each = [torch.bmm(x, g) for x, g in zip(self._by_example, gy, strict=True)]
        self._norms_of(each[0] if len(each) == 1 else torch.cat(each), total)
