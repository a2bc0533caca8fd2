"""The local optimizers over blocks of parameters: what torch's do, in a few passes for the models of many devices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.bank import Block

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def is_plain(training: TrainingSpec) -> bool:
    """Return whether a step is rate · gradient alone."""
    return training.optimizer == "sgd" and training.momentum == 0 and training.proximal_mu == 0


class Descent:
    """SGD, SGD with momentum or Adam (Kingma and Ba 2015, Algorithm 1), with FedProx's pull and SCAFFOLD's correction.

    ``begin`` starts all devices afresh, ``step(k)`` changes the first ``k``; all have taken the same number of steps.
    """

    def __init__(self, training: TrainingSpec, blocks: Sequence[Block]) -> None:
        self._spec = training
        self._steps = 0
        self._moves = [_Move(training, block) for block in blocks]

    @property
    def anchored(self) -> bool:
        """Whether ``begin`` must be told where parameters start."""
        return self._spec.proximal_mu > 0

    def begin(
        self, anchors: Sequence[torch.Tensor] | None, corrections: Sequence[torch.Tensor] | None
    ) -> None:
        """Forget all state. ``anchors`` is where parameters start, ``corrections`` what gradients get, cut like the blocks."""
        self._steps = 0
        for number, move in enumerate(self._moves):
            move.begin(
                None if anchors is None else anchors[number],
                None if corrections is None else corrections[number],
            )

    def step(self, devices: int, divisor: float = 1.0) -> None:
        """Take one step of the first ``devices`` by their gradients over ``divisor``; changes the gradients too."""
        self._steps += 1
        for move in self._moves:
            move.step(slice(devices), self._steps, divisor)


class _Move:
    """The optimizer's state for one block."""

    def __init__(self, training: TrainingSpec, block: Block) -> None:
        self._spec = training
        self._values, self._gradients = block.values, block.gradients
        adam = training.optimizer == "adam"
        self._plain = is_plain(training)
        states = 2 if adam else int(training.momentum > 0)
        self._state = [torch.zeros_like(block.values) for _ in range(states)]
        self._scratch = torch.empty_like(
            block.values if adam or training.proximal_mu > 0 else block.values[:0]
        )
        self._anchor = self._correction = None  # type: torch.Tensor | None

    def begin(self, anchor: torch.Tensor | None, correction: torch.Tensor | None) -> None:
        for state in self._state:
            state.zero_()
        self._anchor, self._correction = anchor, correction

    def step(self, part: slice, number: int, divisor: float) -> None:
        """Take the step of this number, from 1, over a part of the values, by its gradients over ``divisor``."""
        values, gradient = self._values[part], self._gradients[part]
        if self._plain and self._correction is None:
            values.add_(gradient, alpha=-self._spec.learning_rate / divisor)
            return
        if divisor != 1.0:
            gradient.div_(divisor)
        if self._spec.proximal_mu > 0 and self._anchor is not None:
            away = torch.sub(values, self._anchor[part], out=self._scratch[part])
            gradient.add_(away, alpha=self._spec.proximal_mu)
        if self._correction is not None:
            gradient.add_(self._correction[part])
        if self._spec.optimizer == "adam":
            self._adam(values, gradient, part, number)
            return
        if self._state:
            gradient = self._state[0][part].mul_(self._spec.momentum).add_(gradient)
        values.add_(gradient, alpha=-self._spec.learning_rate)

    def _adam(self, values: torch.Tensor, gradient: torch.Tensor, part: slice, number: int) -> None:
        mean, square = (state[part] for state in self._state)
        mean.lerp_(gradient, 1 - _BETA1)
        square.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        spread = torch.sqrt(square, out=self._scratch[part])
        spread.div_(math.sqrt(1 - _BETA2**number)).add_(_EPSILON)
        values.addcdiv_(mean, spread, value=-self._spec.learning_rate / (1 - _BETA1**number))
