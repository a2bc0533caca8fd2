"""A kernel's gradient beside autograd's, before it is trusted with a recipe."""

from __future__ import annotations

from typing import Final

import torch

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.compiled import Compiled, grad_mode
from hedgerow.simulations.kernel.program import Programs

TOLERANCE: Final = 1e-4
"""Of the largest value of the gradient: rounding gives 1e-6, a wrong formula far more."""
ROWS: Final = 3
TRIALS: Final = 2
"""A value that rounding puts on the other side of a ReLU's zero may spoil one batch, not both."""


def prove_gradient(recipe: Recipe, compiled: Compiled, bank: Bank, programs: Programs, devices: int) -> None:
    """Compare on random batches for ``devices`` side by side; leaves ``bank`` changed.

    Raises UnsupportedError if a gradient is not autograd's.
    """
    worst = min(_difference(recipe, compiled, bank, programs, devices, trial) for trial in range(TRIALS))
    if not worst <= TOLERANCE:
        raise UnsupportedError(f"the compiled gradient differs from autograd's by {worst:.1e} of its size")


def _difference(
    recipe: Recipe,
    compiled: Compiled,
    bank: Bank,
    programs: Programs,
    devices: int,
    trial: int,
) -> float:
    """Return the largest difference over the largest value; NaN where either is not finite."""
    draws = torch.Generator().manual_seed(100 + trial)
    network, module = compiled.network, compiled.module
    x = torch.randn((devices * ROWS, *network.input_shape), generator=draws)
    y = None
    if recipe.task == "classification":
        y = torch.randint(network.output_shape[-1], (len(x),), generator=draws)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    wanted = []
    for device in range(devices):
        part = slice(device * ROWS, (device + 1) * ROWS)
        losses = recipe.loss(module, x[part], None if y is None else y[part])
        found = torch.autograd.grad(losses.mean(), list(module.parameters()), allow_unused=True)
        pairs = zip(found, module.parameters(), strict=True)
        wanted.append(torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs]))
    with grad_mode(compiled.loss):
        bank.load(compiled.layout.inward_tensor(flat[None]).to(bank.device).expand(devices, -1))
        program = programs.get(devices, ROWS)
        program.x.copy_(x)
        target = compiled.loss.targets(None if y is None else y.to(bank.device), len(x))
        program.gradient(target, 1.0 / ROWS)
        ours = bank.gradients(devices).cpu()
        theirs = compiled.layout.inward_tensor(torch.stack(wanted))
        return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
