"""Opacus's optimizer with what it lacks: noise keyed by the operating system, and examples without a finite gradient."""

from __future__ import annotations

import torch
from opacus.optimizers import DPOptimizer

from hedgerow.shared.privacy.noise import SystemRandom

_SLACK = 1 - 1e-6


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """DP-SGD's step (Abadi et al. 2016, Algorithm 1) over any torch optimizer.

    Each example's gradient over all parameters is clipped to an L2 norm of at most ``max_grad_norm``; one whose norm
    is not finite counts as zero. N(0, (``noise_multiplier`` · ``max_grad_norm``)²) from ``random`` is added to the
    **sum**, which is divided by the constant ``expected_batch_size``. Sensitivity of the sum to adding or removing one
    example: ``max_grad_norm``. The noise is always added, also to an empty batch.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        random: SystemRandom,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
        )
        self._random = random

    def clip_and_accumulate(self) -> None:
        """Add the clipped gradients of one (part of a) batch to ``summed_grad``, in float32.

        Norms are taken in float64 and the factor is a hair below C / norm, so that rounding does not exceed C.
        """
        samples = self.grad_samples
        each = [
            torch.linalg.vector_norm(
                sample.reshape(len(sample), parameter.numel()), dim=1, dtype=torch.float64
            )
            for parameter, sample in zip(self.params, samples, strict=True)
        ]
        norms = torch.linalg.vector_norm(torch.stack(each), dim=0)
        factor = (self.max_grad_norm / norms.clamp(min=1e-30)).clamp(max=1.0) * _SLACK
        counted = torch.isfinite(norms)
        all_counted = bool(counted.all())
        factor = torch.where(counted, factor, torch.zeros_like(factor)).float()
        for parameter, sample in zip(self.params, samples, strict=True):
            finite = sample if all_counted else torch.nan_to_num(sample, nan=0.0, posinf=0.0, neginf=0.0)
            clipped = torch.einsum("i,i...", factor, finite)
            parameter.summed_grad = (
                clipped if parameter.summed_grad is None else parameter.summed_grad + clipped
            )

    def add_noise(self) -> None:
        """Set ``grad`` to the sum plus noise, added in float64."""
        sigma = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = torch.from_numpy(self._random.gaussian(parameter.numel(), sigma))
            noisy = parameter.summed_grad.double() + noise.view(parameter.shape)
            parameter.grad = noisy.float()

    def scale_grad(self) -> None:
        """Divide by the constant denominator, whatever was drawn."""
        for parameter in self.params:
            parameter.grad /= self.expected_batch_size
