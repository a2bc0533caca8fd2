"""Convolution steps: the first layer as one gemm over its unfolded input, later ones by torch's own (oneDNN) channels last."""

from __future__ import annotations

import torch

from hedgerow.simulations.kernel.explicit.buffers import Buffers
from hedgerow.simulations.kernel.network import Conv


class _ConvStep:
    """What both kinds share: places in the flat vectors, the padded input, and per-example gradients for DP-SGD."""

    def __init__(
        self,
        layer: Conv,
        place: str,
        x: torch.Tensor,
        model: torch.Tensor,
        grads: torch.Tensor,
        buffers: Buffers,
    ) -> None:
        self._layer, self._place, self._n, self._buffers = layer, place, len(x), buffers
        count = layer.taps * layer.filters
        self._flat_w, self._flat_gw = (v[layer.at : layer.at + count] for v in (model, grads))
        ends = (layer.at + count, layer.at + count + layer.filters)
        self._b = model[slice(*ends)] if layer.bias else None
        self._gb = grads[slice(*ends)] if layer.bias else None
        self._positions = layer.out[0] * layer.out[1]
        self.y = buffers.take(f"{place}.y", self._n, self._positions * layer.filters)
        self._each = torch.empty(0)

    def _watch(self, gy: torch.Tensor) -> None:
        self._gy = gy
        self._gy3 = gy.view(self._n, self._positions, self._layer.filters)
        self._gy2 = gy.view(-1, self._layer.filters)

    def _sum_bias(self) -> None:
        if self._gb is not None:
            torch.sum(self._gy2, 0, out=self._gb)

    def _add_norms(self, each: torch.Tensor, total: torch.Tensor) -> None:
        """``each`` holds one gradient of the weights per example, ``(n, …)``; kept for ``add_weighted``."""
        self._each = each.view(self._n, -1)
        total.add_(torch.linalg.vector_norm(self._each, dim=1, dtype=torch.float64).square_())
        if self._gb is not None:
            self._each_b = self._gy3.sum(1)
            total.add_(torch.linalg.vector_norm(self._each_b, dim=1, dtype=torch.float64).square_())

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``Step``."""
        row = factor.view(1, -1)
        self._flat_gw.view(1, -1).addmm_(row, self._each)
        if self._gb is not None:
            self._gb.view(1, -1).addmm_(row, self._each_b)

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``Step``."""
        self._each[bad] = 0.0
        if self._gb is not None:
            self._each_b[bad] = 0.0


class FirstConvStep(_ConvStep):
    """Reads ``x`` ``(n, channels, height, width)`` as given. Its unfolded input has one row per tap, so that copying it moves
    whole image rows, and all filters come from one gemm.
    """

    def __init__(
        self,
        layer: Conv,
        place: str,
        x: torch.Tensor,
        model: torch.Tensor,
        grads: torch.Tensor,
        buffers: Buffers,
    ) -> None:
        super().__init__(layer, place, x, model, grads, buffers)
        n, (high, wide), (above, left) = self._n, layer.size, layer.padding
        tall, broad = high + 2 * above, wide + 2 * left
        padded = buffers.take(f"{place}.padded", n, layer.channels, tall, broad)
        self._x = x.view(n, layer.channels, high, wide)
        self._inside = padded[:, :, above : above + high, left : left + wide]
        image, plane = layer.channels * tall * broad, tall * broad
        self._taps = padded.as_strided(
            (layer.channels, *layer.kernel, n, *layer.out),
            (plane, broad, 1, image, layer.stride[0] * broad, layer.stride[1]),
        )
        flat = buffers.block(f"{place}.taps", layer.taps * n * self._positions, layer.taps * self._positions)
        self._unfolded = flat.view(self._taps.shape)
        self._rows = flat.view(layer.taps, n * self._positions)
        self._columns = self._rows.t()
        self._each_x = flat.view(layer.taps, n, self._positions).transpose(0, 1)
        self._w = self._flat_w.view(layer.taps, layer.filters)
        self._gw = self._flat_gw.view(layer.taps, layer.filters)
        self._y2 = self.y.view(-1, layer.filters)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``: nobody wants the gradient of the examples."""
        self._watch(gy)
        return None

    def forward(self) -> None:
        """See ``Step``."""
        self._inside.copy_(self._x)
        self._unfolded.copy_(self._taps)
        if self._b is None:
            torch.mm(self._columns, self._w, out=self._y2)
        else:
            torch.addmm(self._b, self._columns, self._w, out=self._y2)

    def back(self) -> None:
        """See ``Step``."""

    def gradient(self) -> None:
        """See ``Step``."""
        torch.mm(self._rows, self._gy2, out=self._gw)
        self._sum_bias()

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``Step``."""
        self._add_norms(torch.bmm(self._each_x, self._gy3), total)


class ConvStep(_ConvStep):
    """Reads and writes ``(n, height, width, channels)``; torch sees it as channels first with strides to match."""

    def __init__(
        self,
        layer: Conv,
        place: str,
        x: torch.Tensor,
        model: torch.Tensor,
        grads: torch.Tensor,
        buffers: Buffers,
    ) -> None:
        super().__init__(layer, place, x, model, grads, buffers)
        self._x4 = x.view(self._n, *layer.size, layer.channels).permute(0, 3, 1, 2)
        self._y4 = self._last(self.y)
        shape = (layer.filters, *layer.kernel, layer.channels)
        self._w4, self._gw4 = (v.view(shape).permute(0, 3, 1, 2) for v in (self._flat_w, self._flat_gw))
        self._options = ([layer.filters], layer.stride, layer.padding, (1, 1), False, (0, 0), 1)

    def _last(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.view(self._n, *self._layer.out, self._layer.filters).permute(0, 3, 1, 2)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._watch(gy)
        self._gy4 = self._last(gy)
        layer = self._layer
        gx = self._buffers.take(f"{self._place}.gx", self._n, layer.size[0] * layer.size[1] * layer.channels)
        self._gx4 = gx.view(self._n, *layer.size, layer.channels).permute(0, 3, 1, 2)
        return gx

    def forward(self) -> None:
        """See ``Step``."""
        self._y4.copy_(torch.conv2d(self._x4, self._w4, self._b, self._layer.stride, self._layer.padding))

    def back(self) -> None:
        """See ``Step``."""
        self._gx4.copy_(self._backward((True, False, False))[0])

    def gradient(self) -> None:
        """See ``Step``."""
        self._gw4.copy_(self._backward((False, True, False))[1])
        self._sum_bias()

    def _backward(self, wanted: tuple[bool, bool, bool]) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = torch.ops.aten.convolution_backward(
            self._gy4, self._x4, self._w4, *self._options, wanted
        )
        return found

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``Step``. Per-example gradients by one small gemm each over the unfolded input."""
        self._add_norms(torch.bmm(self._gy3.transpose(1, 2), self._unfold()), total)

    def _unfold(self) -> torch.Tensor:
        """Return the input under each output, ``(n, positions, taps)``, taps ordered as the weights are."""
        layer, n = self._layer, self._n
        (high, wide), (above, left) = layer.size, layer.padding
        tall, broad = high + 2 * above, wide + 2 * left
        padded = self._buffers.take(f"{self._place}.padded", n, tall, broad, layer.channels)
        padded[:, above : above + high, left : left + wide].copy_(self._x4.permute(0, 2, 3, 1))
        row, column = broad * layer.channels, layer.channels
        taps = padded.as_strided(
            (n, *layer.out, layer.kernel[0], layer.kernel[1] * layer.channels),
            (tall * row, layer.stride[0] * row, layer.stride[1] * column, row, 1),
        )
        unfolded = self._buffers.take(f"{self._place}.taps", n, self._positions, layer.taps)
        unfolded.view(taps.shape).copy_(taps)
        return unfolded
