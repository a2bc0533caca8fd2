"""How many floating-point operations a round must take, and so how fast the machine could run it at best."""

from __future__ import annotations

import torch
from torch import nn

from hedgerow.models.recipe import find_recipe
from hedgerow.simulations.bench.simulation_peers.task import PeerTask


def flops_per_sample(module: nn.Module, x: torch.Tensor) -> int:
    """Return the operations of one example's training step: two for each multiply and add.

    Forward, the gradient of every weight, and that of every layer's input but the first one's, which nobody needs. Dense
    layers and convolutions are counted; activations, pooling and the loss are not. ``x`` is one example, ``(1, *input)``.
    """
    forward: list[int] = []
    handles = [
        layer.register_forward_hook(lambda layer, _, out: forward.append(_products(layer, out)))
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return 2 * (3 * sum(forward) - forward[0])


def task_flops_per_sample(task: PeerTask) -> int:
    """Return the same for a task's recipe."""
    module = find_recipe(task.recipe).build(task.parameters)
    return flops_per_sample(module, torch.from_numpy(task.x[:1].copy()))


def _products(layer: nn.Module, out: torch.Tensor) -> int:
    """Return the multiply-adds of one layer's forward pass that gave ``out``."""
    if isinstance(layer, nn.Conv2d):
        kernel = layer.weight[0].numel()
        return out[0].numel() * kernel
    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    raise TypeError(f"the products of a {type(layer).__name__} are not counted")
