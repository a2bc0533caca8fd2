"""A network's steps for one number of examples: forward, loss, backward, as straight lists of calls."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from hedgerow.simulations.kernel.explicit.buffers import Buffers
from hedgerow.simulations.kernel.explicit.conv import ConvStep, FirstConvStep
from hedgerow.simulations.kernel.explicit.pool import PoolStep
from hedgerow.simulations.kernel.explicit.steps import DenseStep, ReluStep, Step
from hedgerow.simulations.kernel.losses import OutputLoss, Scale
from hedgerow.simulations.kernel.network import Conv, Dense, Layer, Network, Pool


class Program:
    """Reads ``model`` and writes ``gradients``, both float32 ``(n_parameters,)`` in the network's order.

    ``x`` is where the ``n`` examples must be, ``(n, *input)``.
    """

    def __init__(
        self,
        network: Network,
        loss: OutputLoss,
        n: int,
        model: torch.Tensor,
        gradients: torch.Tensor,
        buffers: Buffers,
    ) -> None:
        self.x = buffers.take("x", n, *network.input_shape)
        flat = self.x.view(n, math.prod(network.input_shape))
        steps: list[Step] = []
        for number, layer in enumerate(network.layers):
            steps.append(_bind(layer, str(number), flat, model, gradients, buffers))
            flat = steps[-1].y
        self._loss, self._output = loss, flat
        wanted: torch.Tensor | None = buffers.take("output.g", n, flat.shape[1])
        self._output_gradient = torch.empty(0) if wanted is None else wanted
        self._backward: list[Callable[[], None]] = []
        self._backward_only: list[Callable[[], None]] = []
        for step in reversed(steps):
            if wanted is None:
                break
            wanted = step.attach(wanted)
            only = [] if wanted is None else [step.back]
            own = [step.gradient] if _has_parameters(step) else []
            self._backward += own + only
            self._backward_only += only
        self._forward = [step.forward for step in steps]
        self._owners = [step for step in steps if _has_parameters(step)]

    def gradient(self, target: torch.Tensor | None, scale: Scale) -> None:
        """Fill the gradients with those of Σ scale · loss over the examples at ``x``."""
        for call in self._forward:
            call()
        self._loss.run(self.x, self._output, target, self._output_gradient, scale)
        for call in self._backward:
            call()

    def add_clipped(self, target: torch.Tensor | None, clip: float, slack: float) -> None:
        """Add to the gradients each example's own, its L2 norm clipped to ``clip``; one that is not finite counts as zero.

        Factors as in ``PrivateOptimizer.clip_and_accumulate``; one backward pass (book-keeping, Bu et al. 2023).
        """
        for call in self._forward:
            call()
        self._loss.run(self.x, self._output, target, self._output_gradient, 1.0)
        for call in self._backward_only:
            call()
        norms = torch.zeros(len(self.x), dtype=torch.float64)
        for step in self._owners:
            step.add_norms(norms)
        norms.sqrt_()
        factor = (clip / norms.clamp(min=1e-30)).clamp_(max=1.0).mul_(slack)
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            factor[~finite] = 0.0
            for step in self._owners:
                step.scrub(~finite)
        factor = factor.float()
        for step in self._owners:
            step.add_weighted(factor)


def _bind(
    layer: Layer, place: str, x: torch.Tensor, model: torch.Tensor, gradients: torch.Tensor, buffers: Buffers
) -> Step:
    if isinstance(layer, Dense):
        return DenseStep(layer, place, x, model, gradients, buffers)
    if isinstance(layer, Conv):
        kind = FirstConvStep if layer.first else ConvStep
        return kind(layer, place, x, model, gradients, buffers)
    if isinstance(layer, Pool):
        return PoolStep(layer, place, x, buffers)
    return ReluStep(x)


def _has_parameters(step: Step) -> bool:
    return isinstance(step, DenseStep | FirstConvStep | ConvStep)
