"""The local optimizers over flat vectors: what torch's do, one or a few passes for a whole model (or many of them)."""

from __future__ import annotations

import math

import torch

from hedgerow.shared.job import TrainingSpec

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Descent:
    """SGD, SGD with momentum or Adam (Kingma and Ba 2015, Algorithm 1), with FedProx's pull and SCAFFOLD's correction.

    ``parameters`` and ``gradients`` are float32 of one shape, ``(n,)`` or ``(devices, n)``; ``begin`` starts a device (or
    many) afresh, ``step(k)`` changes the first ``k`` rows.
    """

    def __init__(self, training: TrainingSpec, parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        self._training = training
        self._parameters = parameters
        self._gradients = gradients
        adam = training.optimizer == "adam"
        states = 2 if adam else int(training.momentum > 0)
        self._state = [torch.zeros_like(parameters) for _ in range(states)]
        self._scratch = torch.empty_like(parameters) if adam or training.proximal_mu > 0 else None
        self._anchor: torch.Tensor | None = None
        self._correction: torch.Tensor | None = None
        self._steps = 0

    def begin(self, anchor: torch.Tensor, correction: torch.Tensor | None) -> None:
        """Forget all state. ``anchor`` is where the parameters start, ``correction`` what every gradient gets."""
        for state in self._state:
            state.zero_()
        self._anchor, self._correction, self._steps = anchor, correction, 0

    def step(self, rows: int | None = None) -> None:
        """Take one step of the first ``rows`` (all, if None); changes the gradients too."""
        part = slice(rows)
        weights, gradient = self._parameters[part], self._gradients[part]
        self._steps += 1
        if self._training.proximal_mu > 0 and self._anchor is not None and self._scratch is not None:
            away = torch.sub(weights, self._anchor[part], out=self._scratch[part])
            gradient.add_(away, alpha=self._training.proximal_mu)
        if self._correction is not None:
            gradient.add_(self._correction[part])
        if self._training.optimizer == "adam":
            self._adam(weights, gradient, part)
            return
        if self._state:
            gradient = self._state[0][part].mul_(self._training.momentum).add_(gradient)
        weights.add_(gradient, alpha=-self._training.learning_rate)

    def _adam(self, weights: torch.Tensor, gradient: torch.Tensor, part: slice) -> None:
        mean, square = (state[part] for state in self._state)
        mean.lerp_(gradient, 1 - _BETA1)
        square.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        scratch = self._scratch
        if scratch is None:
            raise TypeError("Adam has no room to work in")
        spread = torch.sqrt(square, out=scratch[part])
        spread.div_(math.sqrt(1 - _BETA2**self._steps)).add_(_EPSILON)
        weights.addcdiv_(mean, spread, value=-self._training.learning_rate / (1 - _BETA1**self._steps))
