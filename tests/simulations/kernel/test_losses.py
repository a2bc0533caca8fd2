"""Losses with respect to outputs: a formula is taken only where it is the recipe's own, for values and gradients."""

from __future__ import annotations

import pytest
import torch
from tests.support.simulation_kernels import SketchRecipe, small
from tests.support.tiny_recipe import RECIPE as TINY
from torch import nn
from torch.nn import functional

from hedgerow.shared.errors import ContentError, UnsupportedError
from hedgerow.simulations.kernel.losses import AutogradLoss, CrossEntropy, OutputLoss, SquaredError, find_loss


class Smoothed(SketchRecipe):
    def loss(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        assert y is not None
        return functional.cross_entropy(module(x), y, reduction="none", label_smoothing=0.01)


class Halved(SketchRecipe):
    def loss(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        halved: torch.Tensor = 0.5 * (module(x) - x).square().mean(dim=1)
        return halved


class Batchwise(SketchRecipe):
    def loss(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        raise RuntimeError("this loss wants batches of 64")


def linear(recipe: type[SketchRecipe], classes: int | None) -> SketchRecipe:
    return recipe(lambda: nn.Linear(4, 4), (4,), classes)


def test_shipped_recipes_have_formulas() -> None:
    for name in ("mlp", "digits-cnn", "image-cnn"):
        recipe, parameters = small(name)
        shape = tuple(recipe.input_spec(parameters).shape)
        assert isinstance(find_loss(recipe, shape, recipe.output_spec(parameters).shape), CrossEntropy)
    recipe, parameters = small("anomaly-autoencoder")
    shape = tuple(recipe.input_spec(parameters).shape)
    assert isinstance(find_loss(recipe, shape, shape), SquaredError)


@pytest.mark.parametrize("recipe", [linear(Smoothed, 4), linear(Halved, None), TINY])
def test_a_loss_that_is_nearly_a_formula_is_left_to_autograd(recipe: SketchRecipe) -> None:
    shape = tuple(recipe.input_spec({}).shape)

    assert isinstance(find_loss(recipe, shape, (4,)), AutogradLoss)


def test_a_loss_that_cannot_be_called_alone_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="batches of 64"):
        find_loss(linear(Batchwise, 4), (4,), (4,))


@pytest.mark.parametrize("scale", [0.25, torch.tensor([[0.5], [0.0], [2.0]])])
def test_formulas_give_torchs_values_and_gradients(scale: float | torch.Tensor) -> None:
    draws = torch.Generator().manual_seed(1)
    x, output = torch.randn((2, 3, 5), generator=draws)
    y = torch.tensor([4, 0, 2])
    leaf = output.clone().requires_grad_()
    cases: list[tuple[OutputLoss, torch.Tensor]] = [
        (CrossEntropy(5), functional.cross_entropy(leaf, y, reduction="none")),
        (SquaredError(), functional.mse_loss(leaf, x, reduction="none").mean(dim=1)),
    ]
    for loss, wanted in cases:
        weights = scale.view(-1) if isinstance(scale, torch.Tensor) else scale
        (gradient,) = torch.autograd.grad((wanted * weights).sum(), leaf)
        found = torch.empty_like(output)
        loss.run(x, output, loss.targets(y, 3), found, scale)

        assert torch.allclose(found, gradient, atol=1e-6)
        assert torch.allclose(loss.values(), wanted.detach(), atol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    loss = CrossEntropy(3)
    output = torch.tensor([[1e4, 0.0, -1e4]])
    gradient = torch.empty_like(output)

    loss.run(output, output, loss.targets(torch.tensor([2]), 1), gradient, 1.0)

    assert gradient.tolist() == [[1.0, 0.0, -1.0]]
    assert loss.values().tolist() == [2e4]


def test_a_cross_entropy_wants_labels() -> None:
    with pytest.raises(ContentError, match="without labels"):
        CrossEntropy(3).targets(None, 2)
