"""Operations counted by hand against torch's own counter, which sees what really runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hedgerow.models.recipe import find_recipe
from hedgerow.simulations.bench.simulation_run.flops import flops_per_sample

RECIPES = {
    "image-cnn": (28, 28, 1),
    "digits-cnn": (8, 8, 1),
    "mlp": (64,),
    "anomaly-autoencoder": (16, 8),
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipes_step_takes_what_torch_counts(name: str) -> None:
    recipe = find_recipe(name)
    module = recipe.build(recipe.check({}))
    x = torch.randn(1, *RECIPES[name])
    y = None if name == "anomaly-autoencoder" else torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        recipe.loss(module, x, y).sum().backward()  # type: ignore[no-untyped-call]
    assert flops_per_sample(module, x) == counter.get_total_flops()


def test_the_first_layers_input_needs_no_gradient() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    first, second = 3 * 5, 5 * 2
    assert flops_per_sample(module, torch.randn(1, 3)) == 2 * (2 * first + 3 * second)


def test_counting_leaves_nothing_on_the_module() -> None:
    module = nn.Linear(3, 5)
    flops_per_sample(module, torch.randn(1, 3))
    assert not module._forward_hooks


def test_the_image_workload_takes_the_megaflops_that_are_known() -> None:
    recipe = find_recipe("image-cnn")
    module = recipe.build(recipe.check({}))
    assert flops_per_sample(module, torch.randn(1, 28, 28, 1)) == pytest.approx(6.17e6, rel=0.01)
