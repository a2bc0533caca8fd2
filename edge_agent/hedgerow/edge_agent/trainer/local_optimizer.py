"""The local optimizer that a job names, fresh in every round, and FedProx's pull towards the global model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hedgerow.shared.job import TrainingSpec


def make_optimizer(parameters: Sequence[torch.nn.Parameter], training: TrainingSpec) -> torch.optim.Optimizer:
    """Return the optimizer of ``training`` over ``parameters``, without state from earlier rounds."""
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=training.learning_rate)
    return torch.optim.SGD(parameters, lr=training.learning_rate, momentum=training.momentum)


class ProximalPull:
    """Adds μ (w − w_global) to the gradients: the gradient of FedProx's term (Li et al. 2020, section 3)."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], mu: float) -> None:
        self._parameters = parameters
        self._mu = mu
        self._anchors = [parameter.detach().clone() for parameter in parameters] if mu > 0 else []

    def apply(self) -> None:
        """Change ``grad`` in place; it depends on the models alone, never on an example."""
        for parameter, anchor in zip(self._parameters, self._anchors, strict=False):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=self._mu)
