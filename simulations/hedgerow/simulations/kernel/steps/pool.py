"""Maximum pooling, channels last, its buffers kept."""

from __future__ import annotations

import torch

from hedgerow.simulations.kernel.network import Pool
from hedgerow.simulations.kernel.steps.step import Place


class PoolStep:
    """torch's own kernel: where values tie, the first in reading order gets the gradient, as in training by autograd."""

    def __init__(self, layer: Pool, place: Place, x: torch.Tensor) -> None:
        self._layer, self._x = layer, x
        self._x4 = self._view(x, layer.size)
        self.y = place.take("y", layer.out[0] * layer.out[1] * layer.channels)
        self._y4 = self._view(self.y, layer.out)
        self._which = torch.empty_like(self._y4, dtype=torch.int64)
        self._options = (layer.kernel, layer.stride, layer.padding, (1, 1), False)

    def _view(self, flat: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return flat.view(-1, *size, self._layer.channels).permute(0, 3, 1, 2)

    def attach(self, gy: torch.Tensor) -> torch.Tensor | None:
        """See ``Step``. The input's gradient takes the input's place: only where the maxima were is needed."""
        self._gy4 = self._view(gy, self._layer.out)
        return self._x

    def forward(self) -> None:
        """See ``Step``."""
        torch.ops.aten.max_pool2d_with_indices.out(
            self._x4, *self._options, out=self._y4, indices=self._which
        )

    def back(self) -> None:
        """See ``Step``."""
        torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            self._gy4, self._x4, *self._options, self._which, grad_input=self._x4
        )
