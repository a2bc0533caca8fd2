"""The benchmark's networks as a user writes them in plain PyTorch: parameters in the order and shapes of the recipes'.

This module needs torch alone: it is also run by the interpreter that holds pfl-research.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional


class Classifier(nn.Module):
    """A network with the cross entropy as its loss."""

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy."""
        return functional.cross_entropy(self(x), y)


class ImageNet(Classifier):
    """Two convolutions with pooling over ``(n, 1, side, side)``; 55,338 parameters for a side of 28."""

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * (side // 4) ** 2, 32)
        self.fc2 = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, classes)``."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(torch.flatten(x, 1))))  # type: ignore[no-any-return]


class DigitsNet(Classifier):
    """Two convolutions over ``(n, 1, 8, 8)``, the second with stride two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 3, padding=1)
        self.conv2 = nn.Conv2d(20, 40, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(40 * 16, 48)
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 10)``."""
        x = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        return self.fc2(functional.relu(self.fc1(torch.flatten(x, 1))))  # type: ignore[no-any-return]


class Mlp(Classifier):
    """Dense layers with ReLU between them."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, widths[-1])``."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """A dense autoencoder of flat windows ``(n, size)``, with the squared error as its loss."""

    def __init__(self, size: int, hidden: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, code), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the windows given back, ``(n, size)``."""
        return self.decoder(self.encoder(x))  # type: ignore[no-any-return]

    def loss(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002
        """Return the mean squared error."""
        return functional.mse_loss(self(x), x)


def make_net(net: dict[str, Any]) -> nn.Module:
    """Return the network that a task names: ``kind`` and the sizes that its class takes."""
    kinds: dict[str, Any] = {"image": ImageNet, "digits": DigitsNet, "mlp": Mlp, "autoencoder": Autoencoder}
    made: nn.Module = kinds[net["kind"]](**{key: value for key, value in net.items() if key != "kind"})
    return made


def as_input(net: dict[str, Any], x: npt.NDArray[np.float32]) -> torch.Tensor:
    """Return examples as the network takes them: ``(n, 1, side, side)`` for images, flat otherwise."""
    if net["kind"] in ("image", "digits"):
        return torch.from_numpy(x).reshape(len(x), 1, x.shape[1], x.shape[2])
    return torch.from_numpy(x).reshape(len(x), -1)


def load_vector(net: nn.Module, vector: npt.NDArray[np.float32]) -> None:
    """Set all parameters from one flat vector, in the order of ``parameters()``."""
    nn.utils.vector_to_parameters(torch.from_numpy(vector.copy()), net.parameters())


def as_vector(net: nn.Module) -> npt.NDArray[np.float32]:
    """Return all parameters as one flat vector."""
    with torch.no_grad():
        return nn.utils.parameters_to_vector(net.parameters()).numpy().copy()
