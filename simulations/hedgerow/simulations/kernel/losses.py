"""The gradient of a recipe's loss with respect to its module's output: by formula where one is proven equal, else by autograd.

Rows are examples: outputs, targets and gradients are float32 ``(rows, values)``, contiguous. What is differentiated is
Σ scale · loss over the rows, ``scale`` a number or float32 ``(rows, 1)``.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import ContentError, HedgerowError, UnsupportedError

Scale: TypeAlias = "float | torch.Tensor"


class OutputLoss(Protocol):
    """A loss that is a function of output, input and label of one example."""

    plain: bool
    """Whether no autograd is needed, so that everything may run in inference mode."""

    def targets(self, y: torch.Tensor | None, n: int) -> torch.Tensor | None:
        """Return what ``n`` examples bring beside their input, one row each, or None. Raises ContentError without labels."""

    def run(
        self,
        x: torch.Tensor,
        output: torch.Tensor,
        target: torch.Tensor | None,
        gradient: torch.Tensor,
        scale: Scale,
    ) -> None:
        """Write the gradient for inputs ``x`` ``(rows, *input)``."""

    def values(self) -> torch.Tensor:
        """Return the losses ``(rows,)`` of the last ``run``."""


class CrossEntropy:
    """−log softmax at the label: its gradient is softmax less the label's indicator."""

    plain = True

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def targets(self, y: torch.Tensor | None, n: int) -> torch.Tensor:
        """Return indicators, float32 ``(n, classes)``."""
        if y is None:
            raise ContentError("examples without labels where the loss is a cross entropy")
        return torch.zeros((n, self._classes), device=y.device).scatter_(1, y[:, None], 1.0)

    def run(
        self,
        x: torch.Tensor,  # noqa: ARG002
        output: torch.Tensor,
        target: torch.Tensor | None,
        gradient: torch.Tensor,
        scale: Scale,
    ) -> None:
        """Write (softmax − target) · scale."""
        if target is None:
            raise ContentError("examples without labels where the loss is a cross entropy")
        logarithms = torch.log_softmax(output, 1)
        torch.exp(logarithms, out=gradient)
        gradient.sub_(target).mul_(scale)
        self._last = (logarithms, target)

    def values(self) -> torch.Tensor:
        """Return the losses ``(rows,)`` of the last ``run``."""
        if self._last is None:
            return torch.empty(0)
        logarithms, target = self._last
        return logarithms.mul_(target).sum(1).neg_()


class SquaredError:
    """Mean squared error between output and input, as autoencoders have it."""

    plain = True

    def __init__(self) -> None:
        self._last = torch.empty(0)

    def targets(self, y: torch.Tensor | None, n: int) -> None:  # noqa: ARG002
        """Return None: the input is the target."""
        return

    def run(
        self,
        x: torch.Tensor,
        output: torch.Tensor,
        target: torch.Tensor | None,  # noqa: ARG002
        gradient: torch.Tensor,
        scale: Scale,
    ) -> None:
        """Write 2 (output − x) / values · scale."""
        self._last = torch.sub(output, x.view(output.shape))
        torch.mul(self._last, (2 / output.shape[1]) * scale, out=gradient)

    def values(self) -> torch.Tensor:
        """Return the losses ``(rows,)`` of the last ``run``."""
        return self._last.square_().mean(1)


class AutogradLoss:
    """Any recipe's loss, differentiated by torch from the output on."""

    plain = False

    def __init__(self, recipe: Recipe, output_shape: tuple[int, ...]) -> None:
        self._recipe = recipe
        self._shape = output_shape
        self._last = torch.empty(0)

    def targets(self, y: torch.Tensor | None, n: int) -> torch.Tensor | None:  # noqa: ARG002
        """Return the labels, int64 ``(n,)``."""
        return y

    def run(
        self,
        x: torch.Tensor,
        output: torch.Tensor,
        target: torch.Tensor | None,
        gradient: torch.Tensor,
        scale: Scale,
    ) -> None:
        """Write the gradient. Raises UnsupportedError if the loss gives the module something other than ``x``."""
        with torch.enable_grad():
            leaf = output.detach().view(-1, *self._shape).requires_grad_()
            losses = self._recipe.loss(_Given(x, leaf), x, target)
            weights = scale.view(-1) if isinstance(scale, torch.Tensor) else scale
            (found,) = torch.autograd.grad((losses * weights).sum(), leaf)
        gradient.copy_(found.reshape(gradient.shape))
        if isinstance(scale, torch.Tensor):
            gradient.masked_fill_(scale == 0, 0.0)  # a loss may not be finite at the blank example
        self._last = losses.detach()

    def values(self) -> torch.Tensor:
        """Return the losses ``(rows,)`` of the last ``run``."""
        return self._last


class _Given(nn.Module):
    """A module that was already run: answers its one input with its output."""

    def __init__(self, x: torch.Tensor, output: torch.Tensor) -> None:
        super().__init__()
        self._x = x
        self._output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output. Raises UnsupportedError for another input."""
        if x is not self._x:
            raise UnsupportedError("the recipe's loss changes the examples before they reach the module")
        return self._output


def find_loss(recipe: Recipe, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> OutputLoss:
    """Return the loss of ``recipe``; a formula only if values and gradients equal the recipe's own on random outputs.

    Raises UnsupportedError if the loss cannot be split from the module.
    """
    found = AutogradLoss(recipe, output_shape)
    candidates: list[OutputLoss] = []
    if len(output_shape) == 1:
        candidates.append(CrossEntropy(output_shape[0]))
    if np.prod(output_shape) == np.prod(input_shape):
        candidates.append(SquaredError())
    for candidate in candidates:
        if all(
            _agree(candidate, found, trial, input_shape, output_shape, recipe.task == "classification")
            for trial in range(3)
        ):
            return candidate
    return found


def _agree(
    candidate: OutputLoss,
    found: OutputLoss,
    trial: int,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    labelled: bool,
) -> bool:
    """Compare on a random batch, larger in each trial; the loss's own complaint about labels means no agreement."""
    draws = torch.Generator().manual_seed(trial)
    rows, size = 3 + 2 * trial, int(np.prod(output_shape))
    x = torch.randn((rows, *input_shape), generator=draws)
    output = torch.randn((rows, size), generator=draws).mul_(10.0**trial)
    y = torch.randint(output_shape[-1], (rows,), generator=draws) if labelled else None
    scale = torch.rand((rows, 1), generator=draws)
    ours, theirs = torch.empty_like(output), torch.empty_like(output)
    try:
        candidate.run(x, output, candidate.targets(y, rows), ours, scale)
    except ContentError:
        return False
    try:
        found.run(x, output, found.targets(y, rows), theirs, scale)
    except UnsupportedError:
        raise
    except (RuntimeError, IndexError, HedgerowError) as error:
        raise UnsupportedError(f"the recipe's loss cannot be split from its module: {error}") from error
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6) and torch.allclose(
        candidate.values(), found.values(), rtol=1e-5, atol=1e-6
    )
