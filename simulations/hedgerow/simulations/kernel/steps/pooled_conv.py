"""A first convolution and the pool after it in one step: its outputs are never laid out as an image.

Windows that do not overlap have as many places as the pool is large. The outputs of one place in all windows are one block, made by
one gemm, so that maxima are those of whole blocks, and a gradient finds its way back by comparing blocks. All places read the
same unfolded input, each its own part: weights are laid out wider than the kernel, zero where a place does not look. For a
kernel of 3 x 3 and a pool of 2 x 2 that is 16 rows for 4 outputs, instead of 9 rows for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch

from hedgerow.simulations.kernel.network import Conv, Layer, Pair, Pool
from hedgerow.simulations.kernel.products import copy, product
from hedgerow.simulations.kernel.steps.conv import ConvStep
from hedgerow.simulations.kernel.steps.step import Place


class PooledConvStep(ConvStep):
    """The first layer and its pool. A window reads ``reach`` of the input, the next one ``apart`` from there."""

    def __init__(self, layer: Conv, pool: Pool, place: Place, x: torch.Tensor) -> None:
        super().__init__(layer, place, pool.out[0] * pool.out[1], layer.taps, layer.filters)
        (down, across), (tall, broad) = layer.stride, pool.kernel
        self._places = pool.kernel
        self._reach = (down * (tall - 1) + layer.kernel[0], across * (broad - 1) + layer.kernel[1])
        self._wide = layer.channels * math.prod(self._reach)
        self._lay_input(x, pool.out, (down * tall, across * broad))
        self._lay_outputs()

    @staticmethod
    def fits(layer: Layer, after: Layer | None) -> bool:
        """Return whether the two layers may be taken together: windows must not overlap, and none be cut off."""
        if not (isinstance(layer, Conv) and layer.first and isinstance(after, Pool)):
            return False
        whole = all(n * m == side for n, m, side in zip(after.out, after.kernel, after.size, strict=True))
        return whole and after.kernel == after.stride and after.padding == (0, 0) and after.kernel != (1, 1)

    def _lay_input(self, x: torch.Tensor, out: Pair, apart: Pair) -> None:
        layer, place = self._layer, self._place
        (high, wide), (above, left), (tall, broad) = layer.size, layer.padding, self._reach
        rows = max(high + above, apart[0] * (out[0] - 1) + tall)
        columns = max(wide + left, apart[1] * (out[1] - 1) + broad)
        padded = place.take("padded for windows", layer.channels, rows, columns)
        if layer.last:
            image = x.view(-1, high, wide, layer.channels).permute(0, 3, 1, 2)
        else:
            image = x.view(-1, layer.channels, high, wide)
        plane = rows * columns
        whole = layer.channels * plane
        read = padded.as_strided(
            (place.devices, layer.channels, *self._reach, place.rows, *out),
            (place.rows * whole, plane, columns, 1, whole, apart[0] * columns, apart[1]),
        )
        flat = self._block("read", self._wide * self._positions)
        self._unfold = [
            copy(image, padded[:, :, above : above + high, left : left + wide]),
            copy(read, flat.view(read.shape)),
        ]
        self._rows = flat.view(place.devices, self._wide, -1)
        self._by_example = flat.view(place.devices, self._wide, place.rows, -1).transpose(1, 2)

    def _lay_outputs(self) -> None:
        place, count = self._place, math.prod(self._places)
        spread = place.buffers.take(
            f"{place.name}.wide", place.devices, count, self._wide, self._layer.filters
        )
        parts = self._parts(spread)
        self._spread = [copy(self._own.w.view(part.shape), part) for part in parts]
        blocks = self._block("outputs", count * self._positions * self._layer.filters)
        self._blocks = list(blocks.view(count, *self._y3.shape))
        x = self._rows.transpose(1, 2)
        self._outputs = [product(x, spread[:, n], block) for n, block in enumerate(self._blocks)]
        other = self._block("maxima", self._positions * self._layer.filters).view(self._y3.shape)
        turns = [other, self._blocks[0]] * count
        self._maxima = [self._blocks[0], *turns[: count - 2], self._y3]

    def _block(self, what: str, values: int) -> torch.Tensor:
        return self._place.buffers.block(f"{self._place.name}.{what}", self._place.examples, values)

    def _parts(self, wide: torch.Tensor) -> list[torch.Tensor]:
        """Return what each place reads of ``wide`` ``(k, places, …)``, as ``(k, channels, kh, kw, filters)``."""
        layer = self._layer
        (down, across), (kh, kw) = layer.stride, layer.kernel
        v = wide.view(len(wide), *self._places, layer.channels, *self._reach, layer.filters)
        return [
            v[:, i, j, :, down * i : down * i + kh, across * j : across * j + kw]
            for i in range(self._places[0])
            for j in range(self._places[1])
        ]

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``: nobody wants the gradient of the examples. That of ``y`` is used up on the way to the places."""
        self._watch(gy)
        place = self._place
        wide = place.buffers.take(
            f"{place.name}.wide gradient", place.devices, len(self._blocks), self._wide, self._layer.filters
        )
        self._weights = [product(self._rows, block, wide[:, n]) for n, block in enumerate(self._blocks)]
        self._found = self._parts(wide)
        self._gw5 = self._own.gw.view(self._found[0].shape)
        return None

    def forward(self) -> None:
        """See ``Step``. Blocks are left with what each place has more than those before it; biases change nothing there."""
        for call in (*self._unfold, *self._spread, *self._outputs):
            call()
        for block, before, after in zip(self._blocks[1:], self._maxima, self._maxima[1:], strict=False):
            torch.maximum(before, block, out=after)
            block.sub_(before)
        if self._bias is not None:
            self._y3.add_(self._bias)

    def back(self) -> None:
        """See ``Step``: nothing to do."""

    def _share(self) -> None:
        """Give each window's gradient to the first of its places that is largest, as torch's pools do."""
        for block in self._blocks[:0:-1]:
            torch.ops.aten.threshold_backward.grad_input(self._gy3, block, 0, grad_input=block)
            self._gy3.sub_(block)
        self._blocks[0].copy_(self._gy3)

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        self._sum_biases()
        self._share()
        for call in self._weights:
            call()
        _add_up(self._found, self._gw5)

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._norms_of_biases(total)
        self._share()
        for call in self._apart.products:
            call()
        _add_up(self._apart.found, self._apart.each)
        self._norms_of_weights(self._apart.each, total)

    @cached_property
    def _apart(self) -> _Apart:
        """There is room for it once it is asked for."""
        layer, place = self._layer, self._place
        wide = place.take("wide each", len(self._blocks), self._wide, layer.filters)
        per_device = wide.view(place.devices, place.rows, *wide.shape[1:])
        products = [
            product(x, block.view(place.rows, self._positions, -1), out[:, n])
            for n, blocks in enumerate(self._blocks)
            for x, block, out in zip(self._by_example, blocks, per_device, strict=True)
        ]
        found = self._parts(wide)
        return _Apart(products, found, place.take("each", layer.taps, layer.filters).view(found[0].shape))


class _Apart(NamedTuple):
    """Each example's gradient ``each`` ``(examples, channels, kh, kw, filters)``, the sum of what is ``found`` for each place."""

    products: list[Callable[[], object]]
    found: list[torch.Tensor]
    each: torch.Tensor


def _add_up(parts: list[torch.Tensor], out: torch.Tensor) -> None:
    torch.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        out.add_(part)
