"""Convolutions as batched gemms over unfolded inputs, and, where it is faster, by torch's own (oneDNN) channels last."""

from __future__ import annotations

import torch

from hedgerow.simulations.kernel.network import Conv
from hedgerow.simulations.kernel.steps.step import Place, Tensors, multiply, squares


class _ConvStep:
    """What all kinds share: the output, the sum for biases, and per-example gradients kept between norms and sum."""

    def __init__(self, layer: Conv, place: Place, *weights: int) -> None:
        self._layer, self._place = layer, place
        self._positions = layer.out[0] * layer.out[1]
        self._own = Tensors(layer, place, *weights)
        self.y = place.take("y", self._positions * layer.filters)
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
        self._each = each.view(self._place.examples, -1)
        total.add_(squares(self._each))
        if self._own.gb is not None:
            self._each_bias = self._gy_each.sum(1)
            total.add_(squares(self._each_bias))

    def _weighted(self, factor: torch.Tensor) -> torch.Tensor:
        """Return Σ factor · each, ``(devices, 1, weights)``, and add the biases' to their gradients."""
        row = factor[:, None, :]
        if self._own.gb is not None:
            self._own.gb[:, None, :].baddbmm_(row, self._each_bias.view(*factor.shape, -1))
        return torch.bmm(row, self._each.view(*factor.shape, -1))

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._each[bad] = 0.0
        if self._own.gb is not None:
            self._each_bias[bad] = 0.0


class FirstConvStep(_ConvStep):
    """The first layer. Its unfolded input has one row per tap, so that copying it moves whole rows of an image."""

    def __init__(self, layer: Conv, place: Place, x: torch.Tensor) -> None:
        super().__init__(layer, place, layer.taps, layer.filters)
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
        self._columns = self._rows.transpose(1, 2)
        self._by_example = flat.view(devices, layer.taps, rows, self._positions).transpose(1, 2)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``: nobody wants the gradient of the examples."""
        self._watch(gy)
        return None

    def forward(self) -> None:
        """See ``Step``."""
        self._inside.copy_(self._x)
        self._unfolded.copy_(self._taps)
        multiply(self._bias, self._columns, self._own.w, self._y3)

    def back(self) -> None:
        """See ``Step``: nothing to do."""

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        torch.bmm(self._rows, self._gy3, out=self._own.gw)
        self._sum_biases()

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        gy = self._gy_each.view(self._place.devices, self._place.rows, self._positions, -1)
        each = [torch.bmm(x, g) for x, g in zip(self._by_example, gy, strict=True)]
        self._norms_of(each[0] if len(each) == 1 else torch.cat(each), total)

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._own.gw.add_(self._weighted(factor).view(self._own.gw.shape))


class GemmConvStep(_ConvStep):
    """Reads and writes channels last; weights ``(devices, filters, taps)``, taps in the order ``(kh, kw, channels)``."""

    def __init__(self, layer: Conv, place: Place, x: torch.Tensor) -> None:
        super().__init__(layer, place, layer.filters, layer.taps)
        (high, wide), (above, left) = layer.size, layer.padding
        self._wide = (high + 2 * above, wide + 2 * left)
        self._window = (slice(None), slice(above, above + high), slice(left, left + wide))
        self._x = x.view(-1, high, wide, layer.channels)
        padded = place.take("padded", *self._wide, layer.channels)
        self._inside = padded[self._window]
        column = layer.channels
        row = self._wide[1] * column
        self._taps = padded.as_strided(
            (place.examples, *layer.out, layer.kernel[0], layer.kernel[1] * column),
            (self._wide[0] * row, layer.stride[0] * row, layer.stride[1] * column, row, 1),
        )
        flat = place.take("taps", self._positions * layer.taps)
        self._unfolded = flat.view(self._taps.shape)
        self._by_example = flat.view(place.examples, self._positions, layer.taps)
        self._x3 = flat.view(place.devices, place.rows * self._positions, layer.taps)
        self._wt = self._own.w.transpose(1, 2)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._watch(gy)
        layer, place = self._layer, self._place
        self._gyt = self._gy3.transpose(1, 2)
        gtaps = place.take("gtaps", self._positions * layer.taps)
        self._gtaps3 = gtaps.view(self._x3.shape)
        self._gpadded = place.take("gpadded", *self._wide, layer.channels)
        self._folds = _folds(layer, gtaps, self._gpadded)
        gx = place.take("gx", layer.size[0] * layer.size[1] * layer.channels)
        self._gx4 = gx.view(self._x.shape)
        return gx

    def forward(self) -> None:
        """See ``Step``."""
        self._unfold()
        multiply(self._bias, self._x3, self._wt, self._y3)

    def back(self) -> None:
        """See ``Step``. What several outputs read gets the sum of what they give."""
        torch.bmm(self._gy3, self._own.w, out=self._gtaps3)
        self._gpadded.zero_()
        for target, source in self._folds:
            target.add_(source)
        self._gx4.copy_(self._gpadded[self._window])

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        torch.bmm(self._gyt, self._x3, out=self._own.gw)
        self._sum_biases()

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._norms_of(torch.bmm(self._gy_each.transpose(1, 2), self._by_example), total)

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._own.gw.add_(self._weighted(factor).view(self._own.gw.shape))

    def _unfold(self) -> None:
        self._inside.copy_(self._x)
        self._unfolded.copy_(self._taps)


class NativeConvStep(GemmConvStep):
    """One device's convolution by torch's own kernels: no unfolded input, except for per-example gradients."""

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._watch(gy)
        layer, own = self._layer, self._own
        gx = self._place.take("gx", layer.size[0] * layer.size[1] * layer.channels)
        self._x4, self._gx4 = (v.view(self._x.shape).permute(0, 3, 1, 2) for v in (self._x, gx))
        outputs = (-1, *layer.out, layer.filters)
        self._y4, self._gy4 = (v.view(outputs).permute(0, 3, 1, 2) for v in (self.y, gy))
        shape = (layer.filters, *layer.kernel, layer.channels)
        self._w4, self._gw4 = (v.view(shape).permute(0, 3, 1, 2) for v in (own.w, own.gw))
        self._b1 = None if own.b is None else own.b.view(-1)
        self._options = ([layer.filters], layer.stride, layer.padding, (1, 1), False, (0, 0), 1)
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

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        self._unfold()
        super().add_norms(total)

    def _backward(self, wanted: tuple[bool, bool, bool]) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = torch.ops.aten.convolution_backward(
            self._gy4, self._x4, self._w4, *self._options, wanted
        )
        return found


def _folds(layer: Conv, gtaps: torch.Tensor, padded: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return pairs (part of ``padded``, part of ``gtaps``) to be added, such that none writes one place twice.

    Taps within a stride's width never meet, so that they go together: ⌈k / stride⌉² additions instead of k².
    """
    (kh, kw), (down, across), (high, wide) = layer.kernel, layer.stride, layer.out
    taps = gtaps.view(-1, high, wide, kh, kw, layer.channels)
    image, row, column, value = padded.stride()
    pairs = []
    for top in range(0, kh, down):
        for left in range(0, kw, across):
            source = taps[:, :, :, top : top + down, left : left + across]
            target = padded.as_strided(
                source.shape,
                (image, down * row, across * column, row, column, value),
                padded.storage_offset() + top * row + left * column,
            )
            pairs.append((target, source))
    return pairs
