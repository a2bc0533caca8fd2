"""One device's convolution by torch's own kernels (oneDNN), channels last: the fastest where channels fill whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch

from hedgerow.simulations.kernel.network import Conv
from hedgerow.simulations.kernel.products import product
from hedgerow.simulations.kernel.steps.conv import ConvStep
from hedgerow.simulations.kernel.steps.step import Place


class NativeConvStep(ConvStep):
    """Reads and writes channels last, stride 1; weights ``(filters, kh, kw, channels)``.

    For per-example gradients the input is unfolded along its rows alone, a third of what a 3 × 3 kernel would need in full, and
    each row of the kernel has a gemm of its own.
    """

    def __init__(self, layer: Conv, place: Place, x: torch.Tensor) -> None:
        weights = (layer.filters, *layer.kernel, layer.channels)
        super().__init__(layer, place, layer.out[0] * layer.out[1], *weights)
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
        """See ``OwnerStep``. Gradients are kept as ``(examples, kh, kw · channels, filters)``."""
        rows = self._rows
        rows.inside.copy_(self._x)
        rows.unfolded.copy_(rows.runs)
        for call in rows.products:
            call()
        self._norms_of(rows.each, total)

    def _add_to_weights(self, found: torch.Tensor) -> None:
        """Take a gradient as it is kept for each example."""
        layer = self._layer
        moved = found.view(*layer.kernel, layer.channels, layer.filters).permute(3, 0, 1, 2)
        self._own.gw[0].add_(moved)

    @cached_property
    def _rows(self) -> _Rows:
        """There is room for it once it is asked for."""
        layer, place = self._layer, self._place
        (high, wide), (above, left) = layer.size, layer.padding
        tall, broad = high + 2 * above, wide + 2 * left
        padded = place.take("padded", tall, broad, layer.channels)
        run = layer.kernel[1] * layer.channels
        row = broad * layer.channels
        runs = padded.as_strided(
            (place.examples, tall, layer.out[1], run), (tall * row, row, layer.channels, 1)
        )
        unfolded = place.take("runs", tall, layer.out[1], run)
        each = place.take("each", layer.kernel[0], run, layer.filters)
        products = [
            product(
                unfolded[:, down : down + layer.out[0]].flatten(1, 2).transpose(1, 2),
                self._gy_each,
                each[:, down],
            )
            for down in range(layer.kernel[0])
        ]
        return _Rows(padded[:, above : above + high, left : left + wide], runs, unfolded, each, products)


class _Rows(NamedTuple):
    """What each output's row of the kernel reads, ``unfolded`` ``(examples, padded height, out width, kw · channels)``, copied from
    ``runs``, which lie over each other around what is ``inside``; and ``products`` of it that fill ``each``, the examples'
    gradients, ``(examples, kh, kw · channels, filters)``.
    """

    inside: torch.Tensor
    runs: torch.Tensor
    unfolded: torch.Tensor
    each: torch.Tensor
    products: list[Callable[[], object]]
