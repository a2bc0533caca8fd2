"""One device's convolution by torch's own kernels (oneDNN), channels last: the fastest where channels fill whole vectors."""

from __future__ import annotations

import torch

from hedgerow.simulations.kernel.network import Conv
from hedgerow.simulations.kernel.steps.conv import ConvStep
from hedgerow.simulations.kernel.steps.step import Place, squares


class NativeConvStep(ConvStep):
    """Reads and writes channels last, stride 1; weights ``(filters, kh, kw, channels)``.

    For per-example gradients the input is unfolded along its rows alone, a third of what a 3 × 3 kernel would need in full, and
    each row of the kernel has a gemm of its own.
    """

    def __init__(self, layer: Conv, place: Place, x: torch.Tensor) -> None:
        super().__init__(layer, place, layer.filters, *layer.kernel, layer.channels)
        own = self._own
        self._x = x.view(-1, *layer.size, layer.channels)
        self._x4 = self._x.permute(0, 3, 1, 2)
        self._y4 = self._first(self.y, *layer.out, layer.filters)
        self._w4, self._gw4 = (v[0].permute(0, 3, 1, 2) for v in (own.w, own.gw))
        self._b1 = None if own.b is None else own.b[0]
        self._options = ([layer.filters], layer.stride, layer.padding, (1, 1), False, (0, 0), 1)

    @staticmethod
    def fits(layer: Conv, place: Place, x: torch.Tensor) -> bool:
        """Return whether this step can be taken, and pays."""
        lanes = 16
        whole = layer.channels % lanes == 0 and layer.filters % lanes == 0
        return whole and layer.stride == (1, 1) and place.devices == 1 and x.device.type == "cpu"

    @staticmethod
    def _first(flat: torch.Tensor, *shape: int) -> torch.Tensor:
        return flat.view(-1, *shape).permute(0, 3, 1, 2)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._watch(gy)
        layer = self._layer
        self._gy4 = self._first(gy, *layer.out, layer.filters)
        gx = self._place.take("gx", layer.size[0] * layer.size[1] * layer.channels)
        self._gx4 = self._first(gx, *layer.size, layer.channels)
        return gx

    def forward(self) -> None:
        """See ``Step``."""
        layer = self._layer
        self._y4.copy_(torch.conv2d(self._x4, self._w4, self._b1, layer.stride, layer.padding))

    def back(self) -> None:
        """See ``Step``."""
        self._gx4.copy_(self._backward((True, False, False))[0])

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        self._gw4.copy_(self._backward((False, True, False))[1])
        self._sum_biases()

    def _backward(self, wanted: tuple[bool, bool, bool]) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = torch.ops.aten.convolution_backward(
            self._gy4, self._x4, self._w4, *self._options, wanted
        )
        return found

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``. Gradients are kept as ``(kh, examples, kw · channels, filters)``."""
        layer, place = self._layer, self._place
        unfolded = self._unfold_rows()
        run = layer.kernel[1] * layer.channels
        self._each = place.take("each", layer.kernel[0] * run * layer.filters).view(
            layer.kernel[0], place.examples, run, layer.filters
        )
        for row, each in enumerate(self._each):
            x = unfolded[:, row : row + layer.out[0]].reshape(place.examples, self._positions, run)
            torch.bmm(x.transpose(1, 2), self._gy_each, out=each)
            total.add_(squares(each.view(place.examples, -1)))
        self._norms_of_biases(total)

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        layer = self._layer
        self._add_weighted_biases(factor)
        gw = self._own.gw[0]
        for row, each in enumerate(self._each):
            found = torch.mm(factor, each.view(self._place.examples, -1))
            gw[:, row].add_(found.view(layer.kernel[1], layer.channels, layer.filters).permute(2, 0, 1))

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._each[:, bad] = 0.0
        self._scrub_biases(bad)

    def _unfold_rows(self) -> torch.Tensor:
        """Return what each output's row of the kernel reads, ``(examples, padded height, out width, kw · channels)``."""
        layer, place = self._layer, self._place
        (high, wide), (above, left) = layer.size, layer.padding
        tall, broad = high + 2 * above, wide + 2 * left
        padded = place.take("padded", tall, broad, layer.channels)
        padded[:, above : above + high, left : left + wide].copy_(self._x)
        run = layer.kernel[1] * layer.channels
        row = broad * layer.channels
        runs = padded.as_strided(
            (place.examples, tall, layer.out[1], run), (tall * row, row, layer.channels, 1)
        )
        return place.take("runs", tall, layer.out[1], run).copy_(runs)
