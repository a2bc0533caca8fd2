"""A network's steps for so many devices and rows: forward, loss, backward, as straight lists of calls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from hedgerow.simulations.kernel.bank import Bank, LayerBank
from hedgerow.simulations.kernel.buffers import Buffers
from hedgerow.simulations.kernel.compiled import CLIP_SLACK, Compiled
from hedgerow.simulations.kernel.losses import Scale
from hedgerow.simulations.kernel.network import Conv, Dense, Layer, Pool
from hedgerow.simulations.kernel.steps.conv import ConvStep, FirstConvStep
from hedgerow.simulations.kernel.steps.dense import DenseStep
from hedgerow.simulations.kernel.steps.descend import descent_of
from hedgerow.simulations.kernel.steps.gemm_conv import GemmConvStep
from hedgerow.simulations.kernel.steps.native_conv import NativeConvStep
from hedgerow.simulations.kernel.steps.pool import PoolStep
from hedgerow.simulations.kernel.steps.pooled_conv import PooledConvStep
from hedgerow.simulations.kernel.steps.step import OwnerStep, Place, ReluStep, Step


class Program:
    """Works on the first ``devices`` of ``bank``, ``rows`` examples each. ``x`` is where they must be,
    ``(devices · rows, *input)``.
    """

    def __init__(self, compiled: Compiled, devices: int, rows: int, bank: Bank, buffers: Buffers) -> None:
        network = compiled.network
        self._shape = (devices, rows)
        self.x = buffers.take("x", devices * rows, *network.input_shape)
        flat = self.x.view(-1, math.prod(network.input_shape))
        bound: list[tuple[Layer, Step, torch.Tensor]] = []
        self._owners: list[OwnerStep] = []
        for number, (layer, pool) in enumerate(_paired(network.layers)):
            step = _bind(layer, pool, Place(str(number), devices, rows, bank, buffers), flat)
            bound.append((layer, step, flat))
            flat = step.y
            if isinstance(step, DenseStep | ConvStep):
                self._owners.append(step)
        self._loss, self._output = compiled.loss, flat
        self._output_gradient = buffers.take("output.g", len(flat), flat.shape[1])
        self._forward = [step.forward for _, step, _ in bound]
        self._backward: list[Callable[[], None]] = []
        self._backs: list[Callable[[], None]] = []
        self._attach(bound, bank)

    def _attach(self, bound: list[tuple[Layer, Step, torch.Tensor]], bank: Bank) -> None:
        """Lay gradients' buffers from the output to the first layer with parameters, and stop there."""
        wanted: torch.Tensor | None = self._output_gradient
        for layer, step, x in reversed(bound):
            if wanted is None:
                break
            gy, wanted = wanted, step.attach(wanted)
            # Back first: over a ``LayerBank`` the gradient changes the weights that lead back.
            if wanted is not None:
                self._backward.append(step.back)
                self._backs.append(step.back)
            if not isinstance(step, DenseStep | ConvStep):
                continue
            if isinstance(bank, LayerBank) and isinstance(layer, Dense | Conv):
                self._backward.append(descent_of(layer, bank, x, gy, step.gradient))
            else:
                self._backward.append(step.gradient)

    def gradient(self, target: torch.Tensor | None, scale: Scale) -> None:
        """Set each device's gradients to those of Σ scale · loss over its rows; ``scale`` a number or ``(examples, 1)``.

        Over a ``LayerBank`` each layer takes its step by them instead.
        """
        for call in self._forward:
            call()
        self._loss.run(self.x, self._output, target, self._output_gradient, scale)
        for call in self._backward:
            call()

    def add_clipped(self, target: torch.Tensor | None, clip: torch.Tensor, mask: Scale) -> None:
        """Add to each device's gradients those of its rows, each clipped to the L2 norm ``clip``, float64 ``(devices, 1)``.

        A row whose gradient is not finite counts as zero, as does one where ``mask``, a number or ``(examples, 1)``, is.
        Factors as in ``PrivateOptimizer.clip_and_accumulate``; one backward pass (book-keeping, Bu et al. 2023).
        """
        for call in self._forward:
            call()
        self._loss.run(self.x, self._output, target, self._output_gradient, mask)
        for call in self._backs:
            call()
        total = torch.zeros(len(self.x), dtype=torch.float64, device=self.x.device)
        for owner in self._owners:
            owner.add_norms(total)
        weights = self._factors(total, clip)
        for owner in self._owners:
            owner.add_weighted(weights)

    def _factors(self, total: torch.Tensor, clip: torch.Tensor) -> torch.Tensor:
        """Return min(1, clip / norm), float32 ``(devices, rows)``, from square norms; zero for a row that is not finite, which is scrubbed."""
        all_finite = math.isfinite(float(total.sum()))
        norms = total.sqrt_().view(self._shape)
        factor = (CLIP_SLACK * clip / torch.maximum(norms, clip).clamp_(min=1e-30)).float()
        if not all_finite:
            bad = torch.isfinite(norms).logical_not_()
            factor.masked_fill_(bad, 0.0)
            for owner in self._owners:
                owner.scrub(bad.view(-1))
        return factor


def _paired(layers: Sequence[Layer]) -> Iterator[tuple[Layer, Pool | None]]:
    """Yield the layers, with the pool after one where both are one step."""
    left = deque(layers)
    while left:
        layer, after = left.popleft(), left[0] if left else None
        if PooledConvStep.fits(layer, after) and isinstance(after, Pool):
            left.popleft()
            yield layer, after
        else:
            yield layer, None


def _bind(layer: Layer, pool: Pool | None, place: Place, x: torch.Tensor) -> Step:
    if isinstance(layer, Dense):
        return DenseStep(layer, place, x)
    if isinstance(layer, Pool):
        return PoolStep(layer, place, x)
    if not isinstance(layer, Conv):
        return ReluStep(x)
    if layer.first:
        return FirstConvStep(layer, place, x) if pool is None else PooledConvStep(layer, pool, place, x)
    if NativeConvStep.fits(layer, place, x):
        return NativeConvStep(layer, place, x)
    return GemmConvStep(layer, place, x)


class Programs:
    """Programs by number of devices and rows, and the buffers they share, which grow when they must."""

    KEPT = 512

    def __init__(self, compiled: Compiled, bank: Bank, device: torch.device) -> None:
        self._compiled, self._bank, self._device = compiled, bank, device
        self._buffers = Buffers(1, device)
        self._held: dict[tuple[int, int], Program] = {}

    def get(self, devices: int, rows: int, at_least: int = 1) -> Program:
        """Return the program for the first ``devices``, ``rows`` examples each; buffers hold ``at_least`` so many examples."""
        need = max(devices * rows, at_least)
        if need > self._buffers.capacity or len(self._held) > self.KEPT:
            self._buffers = Buffers(max(need, self._buffers.capacity), self._device)
            self._held = {}
        key = (devices, rows)
        if key not in self._held:
            self._held[key] = Program(self._compiled, devices, rows, self._bank, self._buffers)
        return self._held[key]
