"""A layer's step of plain SGD as soon as its gradient is known, so that no gradient of a whole model is ever held.

Each value moves by the same product and the same sum as when all gradients were there first; only the order of layers in time
is another. A large dense layer goes by its outputs' rows: what one of them is does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from hedgerow.simulations.kernel.bank import LayerBank, rows_at_once
from hedgerow.simulations.kernel.network import Conv, Dense


class LayerDescent:
    """The step of a layer whose gradient fits the bank in full. ``gradient`` fills it."""

    def __init__(self, layer: Dense | Conv, bank: LayerBank, gradient: Callable[[], None]) -> None:
        block = bank.block(layer.at, layer.weights + (layer.outputs if layer.bias else 0))
        self._values, self._gradients = block.values, block.gradients
        self._gradient, self._rate = gradient, bank.rate

    def __call__(self) -> None:
        """Take the step."""
        self._gradient()
        self._values.add_(self._gradients, alpha=-self._rate)


class RowsDescent:
    """The step of a dense layer, a few rows of weights at a time. ``x`` ``(rows, inputs)``, ``gy`` ``(rows, outputs)``."""

    def __init__(self, layer: Dense, bank: LayerBank, x: torch.Tensor, gy: torch.Tensor) -> None:
        self._x, self._gy, self._rate = x[None], gy[None], bank.rate
        gyt, count = gy.t()[None], -(-layer.outputs // rows_at_once(layer))
        weights = bank.block(layer.at, layer.weights).values.view(1, layer.outputs, layer.inputs)
        # All of about one size: a last part of one row would be a product of another kind, with other rounding.
        ends = [layer.outputs * number // count for number in range(count + 1)]
        cuts = [slice(first, last) for first, last in pairwise(ends)]
        self._parts = [
            (gyt[:, cut], weights[:, cut], bank.rows(weights[:, cut].shape[1], layer.inputs)) for cut in cuts
        ]
        self._biases: torch.Tensor | None = None
        if layer.bias:
            block = bank.block(layer.at + layer.weights, layer.outputs)
            self._biases, self._of_biases = block.values, block.gradients

    def __call__(self) -> None:
        """Take the step."""
        for gyt, weights, gradient in self._parts:
            torch.bmm(gyt, self._x, out=gradient)
            weights.add_(gradient, alpha=-self._rate)
        if self._biases is not None:
            torch.sum(self._gy, 1, out=self._of_biases)
            self._biases.add_(self._of_biases, alpha=-self._rate)


def descent_of(
    layer: Dense | Conv,
    bank: LayerBank,
    x: torch.Tensor,
    gy: torch.Tensor,
    gradient: Callable[[], None],
) -> Callable[[], None]:
    """Return what takes the step of a layer from its input ``x`` and its output's gradient ``gy``, both ``(rows, values)``."""
    if isinstance(layer, Dense) and rows_at_once(layer):
        return RowsDescent(layer, bank, x, gy)
    return LayerDescent(layer, bank, gradient)
