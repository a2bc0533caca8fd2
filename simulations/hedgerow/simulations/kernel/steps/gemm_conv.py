"""Convolutions as batched gemms over unfolded inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import torch

from hedgerow.simulations.kernel.network import Conv
from hedgerow.simulations.kernel.products import product
from hedgerow.simulations.kernel.steps.conv import ConvStep
from hedgerow.simulations.kernel.steps.step import Place


class GemmConvStep(ConvStep):
    """Reads and writes channels last; weights ``(devices, filters, taps)``, taps in the order ``(kh, kw, channels)``."""

    def __init__(self, layer: Conv, place: Place, x: torch.Tensor) -> None:
        super().__init__(layer, place, layer.out[0] * layer.out[1], layer.filters, layer.taps)
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
        self._outputs = product(self._x3, self._own.w.transpose(1, 2), self._y3, self._bias)
        # Fewer operations for a norm by products of positions than by the gradient itself (Bu et al. 2022, section 3).
        self._ghost = self._positions * (layer.taps + layer.filters) < layer.taps * layer.filters

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``."""
        self._watch(gy)
        layer, place = self._layer, self._place
        self._gyt = self._gy3.transpose(1, 2)
        gtaps = place.take("gtaps", self._positions * layer.taps)
        self._inputs = product(self._gy3, self._own.w, gtaps.view(self._x3.shape))
        self._weights = product(self._gyt, self._x3, self._own.gw)
        self._gpadded = place.take("gpadded", *self._wide, layer.channels)
        self._folds = _folds(layer, gtaps, self._gpadded)
        gx = place.take("gx", layer.size[0] * layer.size[1] * layer.channels)
        self._gx4 = gx.view(self._x.shape)
        return gx

    def forward(self) -> None:
        """See ``Step``."""
        self._unfold()
        self._outputs()

    def back(self) -> None:
        """See ``Step``. What several outputs read gets the sum of what they give."""
        self._inputs()
        self._gpadded.zero_()
        for target, source in self._folds:
            target.add_(source)
        self._gx4.copy_(self._gpadded[self._window])

    def gradient(self) -> None:
        """See ``OwnerStep``."""
        self._weights()
        self._sum_biases()

    def add_norms(self, total: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        for call in self._apart:
            call()
        if not self._ghost:
            self._norms_of(self._found[0], total)
            return
        inputs, outputs = self._found
        total.add_(inputs.mul_(outputs).sum((1, 2), dtype=torch.float64).clamp_(min=0.0))
        self._norms_of_biases(total)

    def add_weighted(self, factor: torch.Tensor) -> None:
        """See ``OwnerStep``. May scale the gradient of ``y`` in place: it is not needed after this."""
        if not self._ghost:
            super().add_weighted(factor)
            return
        self._add_weighted_biases(factor)
        self._gy_each.mul_(factor.view(-1, 1, 1))
        self._own.gw.baddbmm_(self._gyt, self._x3)

    def scrub(self, bad: torch.Tensor) -> None:
        """See ``OwnerStep``."""
        if not self._ghost:
            super().scrub(bad)
            return
        self._by_example[bad] = 0.0
        self._gy_each[bad] = 0.0
        self._scrub_biases(bad)

    @cached_property
    def _found(self) -> list[torch.Tensor]:
        """Each example's gradient, or the products of its positions: there is room for it once it is asked for."""
        if not self._ghost:
            return [self._place.take("each by filter", self._layer.filters, self._layer.taps)]
        shape = (self._positions, self._positions)
        return [self._place.take("inputs", *shape), self._place.take("outputs", *shape)]

    @cached_property
    def _apart(self) -> list[Callable[[], object]]:
        """What fills ``_found``."""
        x, gy = self._by_example, self._gy_each
        if not self._ghost:
            return [product(gy.transpose(1, 2), x, self._found[0])]
        # Not by numpy: it makes half of a product with itself and copies the other half value by value.
        return [
            partial(torch.bmm, v, v.transpose(1, 2), out=out)
            for v, out in zip((x, gy), self._found, strict=True)
        ]

    def _unfold(self) -> None:
        self._inside.copy_(self._x)
        self._unfolded.copy_(self._taps)


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
