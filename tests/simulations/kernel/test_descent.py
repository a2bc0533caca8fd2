"""The optimizers over blocks beside torch's own, step by step, for some devices and for a shrinking prefix of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hedgerow.edge_agent.trainer.local_optimizer import ProximalPull, make_optimizer
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.bank import Block
from hedgerow.simulations.kernel.descent import Descent

SPECS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"proximal_mu": 0.3},
    {"optimizer": "adam"},
    {"optimizer": "adam", "proximal_mu": 0.3},
    {"momentum": 0.5, "proximal_mu": 2.0},
]
DEVICES, SIZE = 3, 7


def blocks(start: torch.Tensor) -> list[Block]:
    cuts = ((0, 4), (4, SIZE))
    return [Block(a, start[:, a:b].clone(), torch.zeros(DEVICES, b - a)) for a, b in cuts]


@pytest.mark.parametrize("options", SPECS)
def test_each_device_moves_as_under_torchs_optimizer(options: dict[str, Any]) -> None:
    spec = TrainingSpec(learning_rate=0.1, **options)
    draws = torch.Generator().manual_seed(2)
    start = torch.randn((DEVICES, SIZE), generator=draws)
    gradients = torch.randn((6, DEVICES, SIZE), generator=draws)
    active = [3, 3, 2, 2, 2, 1]
    held = blocks(start)
    descent = Descent(spec, held)
    descent.begin([start[:, b.at : b.at + b.values.shape[1]] for b in held], None)
    for step, count in enumerate(active):
        for block in held:
            part = gradients[step, :count, block.at : block.at + block.values.shape[1]]
            block.gradients[:count].copy_(part)
        descent.step(count)

    for device in range(DEVICES):
        parameter = torch.nn.Parameter(start[device].clone())
        optimizer, pull = make_optimizer([parameter], spec), ProximalPull([parameter], spec.proximal_mu)
        for step, count in enumerate(active):
            if device < count:
                parameter.grad = gradients[step, device].clone()
                pull.apply()
                optimizer.step()
        found = torch.cat([block.values[device] for block in held])
        assert torch.allclose(found, parameter.detach(), atol=1e-6)


@pytest.mark.parametrize("options", SPECS)
def test_a_new_beginning_forgets_the_last(options: dict[str, Any]) -> None:
    spec = TrainingSpec(learning_rate=0.1, **options)
    start = torch.ones((DEVICES, SIZE))
    held = blocks(start)
    descent = Descent(spec, held)
    ends = []
    for _ in range(2):
        for block in held:
            block.values.fill_(1.0)
        descent.begin([start[:, b.at : b.at + b.values.shape[1]] for b in held], None)
        for _ in range(3):
            for block in held:
                block.gradients.fill_(0.5)
            descent.step(DEVICES)
        ends.append(torch.cat([block.values for block in held], dim=1))

    assert torch.equal(*ends)


def test_gradients_are_divided_before_pull_and_correction() -> None:
    spec = TrainingSpec(learning_rate=1.0, proximal_mu=0.5)
    start = torch.zeros((DEVICES, SIZE))
    held = blocks(start)
    descent = Descent(spec, held)
    corrections = [torch.full_like(block.values, 3.0) for block in held]
    descent.begin([torch.full_like(block.values, 2.0) for block in held], corrections)
    for block in held:
        block.gradients.fill_(8.0)

    descent.step(2, 4.0)

    # 8 / 4 + 0.5 · (0 − 2) + 3 = 4
    for block in held:
        assert block.values[:2].eq(-4.0).all()
        assert block.values[2:].eq(0.0).all()
