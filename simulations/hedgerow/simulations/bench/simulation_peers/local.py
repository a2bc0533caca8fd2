"""A device's training as a user of PyTorch and Opacus writes it; used by the plain loop and in Flower's ClientApp."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from hedgerow.simulations.bench.simulation_peers.nets import make_net
from hedgerow.simulations.bench.simulation_peers.task import CHECK_STEPS, PeerTask, Setup

CLIP = 1.0


def train_plain(
    net: Any, x: torch.Tensor, y: torch.Tensor | None, batch: int, learning_rate: float
) -> dict[str, torch.Tensor]:
    """Train one epoch over ``x``, which is in its order already, and return a copy of the state."""
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    net.train()
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        optimizer.zero_grad()
        loss = net.loss(x[part], None if y is None else y[part])
        loss.backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def train_private(
    task: PeerTask, setup: Setup, state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Train one epoch by Opacus's DP-SGD with Poisson draws, its default, and return the state.

    With ``setup.whole`` all examples are in every step, and the rate is such that a step is as large as a loop's that
    divides by ``task.batch``.
    """
    from opacus import PrivacyEngine

    warnings.filterwarnings("ignore")
    net = make_net(task.net)
    net.load_state_dict(state)
    net.train()
    whole = setup.whole
    rate = task.learning_rate * (len(x) / task.batch if whole else 1.0)
    parts = (x,) if y is None else (x, y)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*parts), batch_size=len(x) if whole else task.batch
    )
    private, optimizer, loader = PrivacyEngine().make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=rate),
        data_loader=loader,
        noise_multiplier=setup.noise,
        max_grad_norm=CLIP,
        poisson_sampling=not whole,
    )
    for _ in range(CHECK_STEPS if whole else 1):
        for drawn in loader:
            optimizer.zero_grad()
            _loss(private, drawn).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _loss(private: nn.Module, drawn: list[torch.Tensor]) -> torch.Tensor:
    if len(drawn) == 1:
        return nn.functional.mse_loss(private(drawn[0]), drawn[0])
    return nn.functional.cross_entropy(private(drawn[0]), drawn[1])
