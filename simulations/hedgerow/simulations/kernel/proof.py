"""A kernel's gradient beside autograd's, before it is trusted with a recipe."""

from __future__ import annotations

from typing import Final

import torch

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.simulations.kernel.bank import Bank, LayerBank
from hedgerow.simulations.kernel.compiled import Compiled, grad_mode
from hedgerow.simulations.kernel.program import Programs

TOLERANCE: Final = 1e-4
"""Of the largest value of the gradient: rounding gives 1e-6, a wrong formula far more."""
RATE: Final = 1024.0
"""Of a step that is taken to see the gradient: so long that what it began from rounds nothing away."""
ROWS: Final = 3
TRIALS: Final = 2
"""A value that rounding puts on the other side of a ReLU's zero may spoil one batch, not both."""


def prove_gradient(
    recipe: Recipe, parameters: Parameters, compiled: Compiled, bank: Bank, programs: Programs, devices: int
) -> None:
    """Compare on random batches for ``devices`` side by side; leaves ``bank`` changed.

    Raises UnsupportedError if a gradient is not autograd's.
    """
    trial = _Trial(recipe, parameters, compiled, bank, programs, devices)
    worst = min(trial.difference(number) for number in range(TRIALS))
    if not worst <= TOLERANCE:
        raise UnsupportedError(f"the compiled gradient differs from autograd's by {worst:.1e} of its size")


class _Trial:
    """A module of the recipe beside a bank that holds the same model for each device."""

    def __init__(
        self,
        recipe: Recipe,
        parameters: Parameters,
        compiled: Compiled,
        bank: Bank,
        programs: Programs,
        devices: int,
    ) -> None:
        self._recipe, self._compiled, self._bank, self._devices = recipe, compiled, bank, devices
        self._programs = programs
        self._module = recipe.build(parameters)
        self._flat = FlatParameters(self._module)

    def _load(self) -> None:
        base, bank, layout = self._flat.values(), self._bank, self._compiled.layout
        if bank.values.numel() == base.size and bank.device.type == "cpu":
            layout.load(base, bank.values.numpy())
        else:
            bank.load(layout.inward(base)[None].to(bank.device).expand(self._devices, -1))

    def difference(self, number: int) -> float:
        """Return the largest difference over the largest value; NaN where either is not finite."""
        draws = torch.Generator().manual_seed(100 + number)
        network = self._compiled.network
        x = torch.randn((self._devices * ROWS, *network.input_shape), generator=draws)
        y = None
        if self._recipe.task == "classification":
            y = torch.randint(network.output_shape[-1], (len(x),), generator=draws)
        self._load()
        with grad_mode(self._compiled.loss):
            program = self._programs.get(self._devices, ROWS)
            program.x.copy_(x)
            target = self._compiled.loss.targets(None if y is None else y.to(self._bank.device), len(x))
            program.gradient(target, 1.0 / ROWS)
        worst = largest = torch.zeros(())
        for device in range(self._devices):
            part = slice(device * ROWS, (device + 1) * ROWS)
            apart, size = self._beside(device, x[part], None if y is None else y[part])
            worst, largest = torch.maximum(worst, apart), torch.maximum(largest, size)
        return float(worst / largest.clamp(min=1e-30))

    def _beside(
        self, device: int, x: torch.Tensor, y: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the largest difference of one device's gradients from autograd's, and the largest of these.

        The device's gradients are gone then, or its model where that took a step by them: large models are compared in their
        memory, without a copy.
        """
        losses = self._recipe.loss(self._module, x, y)
        weights = list(self._module.parameters())
        found = torch.autograd.grad(losses.mean(), weights, allow_unused=True)
        ours = self._in_the_modules_order(device)
        apart, largest, at = torch.zeros(()), torch.zeros(()), 0
        for gradient, weight in zip(found, weights, strict=True):
            part = ours[at : at + weight.numel()]
            if isinstance(self._bank, LayerBank):
                part.sub_(weight.detach().reshape(-1)).div_(-self._bank.rate)
            if gradient is not None:
                part -= gradient.reshape(-1)
                largest = torch.maximum(largest, _largest(gradient))
            apart = torch.maximum(apart, _largest(part))
            at += weight.numel()
        return apart, largest

    def _in_the_modules_order(self, device: int) -> torch.Tensor:
        """Return a device's gradients as the module has its parameters, ``(n_parameters,)``; the stepped model over a ``LayerBank``."""
        if isinstance(self._bank, LayerBank):
            self._compiled.layout.outward(self._bank.values, self._bank.values.numpy())
            return self._bank.values
        rows = [block.gradients[device].cpu() for block in self._bank.blocks]
        ours = rows[0] if len(rows) == 1 else torch.cat(rows)
        self._compiled.layout.outward(ours, ours.numpy())
        return ours


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Return the largest absolute value, NaN if there is one."""
    if values.numel() == 0:
        return torch.zeros(())
    low, high = torch.aminmax(values)
    return torch.maximum(high, -low)
