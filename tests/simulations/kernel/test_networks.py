"""Modules as kernels read them: any mix of known layers has autograd's gradient, and everything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulation_kernels import SketchRecipe, each_gradient, kernels, make_job, start, trained
from tests.support.tiny_recipe import RECIPE as TINY
from torch import nn

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.network import Conv, Dense, Pool, Relu, read_network
from hedgerow.simulations.kernel.protocol import KernelName

FAST: tuple[KernelName, ...] = ("explicit", "stacked")
CLASSES = 3


class ChannelsFirst(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def agrees(recipe: SketchRecipe, n: int = 5) -> None:
    """One step, plain and private without noise, equals autograd's gradients summed by hand."""
    model = start(recipe, {})
    job = make_job(recipe, {}, model, n, 1)
    each = each_gradient(recipe, {}, job)
    norms = np.linalg.norm(each, axis=1, keepdims=True)
    clip = float(np.median(norms))
    private = job._replace(private=StepPlan(1.0, 0.0, clip, 1), noise_key=(1,))
    clipped = each * np.minimum(1, clip / np.maximum(norms, 1e-30))
    for kernel in kernels(FAST, recipe, {}, batch_size=n, learning_rate=1.0):
        updates, _ = trained(kernel, [job, private])
        size = max(1.0, float(np.abs(each).max()))
        assert np.abs(updates[0] + each.mean(axis=0)).max() <= 1e-5 * size, kernel.name
        assert np.abs(updates[1] + clipped.sum(axis=0) / n).max() <= 1e-5 * size, kernel.name


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, int, int], Callable[[], nn.Module]]:
    """Return an input shape and a stack of one to three convolutions, with and without bias, ReLU and pooling."""
    channels, high, wide = draw(st.integers(1, 3)), draw(st.integers(5, 9)), draw(st.integers(5, 9))
    layers: list[Callable[[], nn.Module]] = []
    shape, seen = (channels, high, wide), channels
    for _ in range(draw(st.integers(1, 3))):
        filters = draw(st.sampled_from([2, 3, 16]))
        options: dict[str, Any] = {
            "kernel_size": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "stride": (draw(st.integers(1, 2)), draw(st.integers(1, 3))),
            "padding": (draw(st.integers(0, 2)), draw(st.integers(0, 1))),
            "bias": draw(st.booleans()),
        }
        layers.append(partial(nn.Conv2d, seen, filters, **options))
        seen = filters
        if draw(st.booleans()):
            layers.append(nn.ReLU)
        if draw(st.booleans()):
            window: dict[str, Any] = draw(
                st.sampled_from([{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}])
            )
            layers.append(partial(nn.MaxPool2d, **window))
        if draw(st.booleans()):
            layers.append(nn.ReLU)

    def make() -> nn.Module:
        body = nn.Sequential(*(layer() for layer in layers), nn.Flatten())
        values = body(torch.zeros((1, *shape))).shape[1]
        return nn.Sequential(body, nn.Linear(values, 4), nn.ReLU(), nn.Linear(4, CLASSES))

    return shape, make


@settings(max_examples=40)
@given(convolutions())
def test_any_stack_of_convolutions_has_autograds_gradient(
    net: tuple[tuple[int, int, int], Callable[[], nn.Module]],
) -> None:
    shape, make = net
    try:
        make()
    except RuntimeError:  # the window does not fit what is left
        return
    agrees(SketchRecipe(make, shape, CLASSES))


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bias=st.booleans(),
    relu=st.booleans(),
    n=st.integers(1, 6),
)
def test_any_stack_of_dense_layers_has_autograds_gradient(
    widths: list[int], bias: bool, relu: bool, n: int
) -> None:
    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in zip([6, *widths], [*widths, CLASSES], strict=True):
            layers += [nn.Linear(before, after, bias=bias), *([nn.ReLU()] if relu else [])]
        return nn.Sequential(*layers[: len(layers) - relu])

    agrees(SketchRecipe(make, (6,), CLASSES), n)


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5, 1)])
def test_a_recipes_own_module_that_only_moves_values_is_followed(shape: tuple[int, int, int]) -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            ChannelsFirst(), nn.Conv2d(shape[2], 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, CLASSES)
        )

    agrees(SketchRecipe(make, shape, CLASSES))


def test_sixteen_channels_take_torchs_own_convolution_and_agree() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2),
            nn.ReLU(), nn.Conv2d(32, 16, (1, 2)), nn.Flatten(), nn.Linear(16 * 3 * 2, CLASSES),
        )  # fmt: skip

    agrees(SketchRecipe(make, (1, 12, 12), CLASSES), 17)


def test_equal_values_in_a_window_give_the_gradient_to_one_of_them() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)
        )

    recipe = SketchRecipe(make, (1, 6, 6), CLASSES)
    model = start(recipe, {})
    model[18:20] = 0.3  # biases: what is left of an empty image, equal everywhere
    job = make_job(recipe, {}, model, 4, 1)
    job.x[:] = 0.0
    each = each_gradient(recipe, {}, job)

    for kernel in kernels(FAST, recipe, {}, batch_size=4, learning_rate=1.0):
        updates, _ = trained(kernel, [job])
        assert updates[0] == pytest.approx(-each.mean(axis=0), abs=1e-6)


def test_an_odd_loss_is_differentiated_by_torch_from_the_output_on() -> None:
    agrees(SketchRecipe(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), (6,)))


@pytest.mark.parametrize("kernel_name", FAST)
def test_a_bare_layer_without_a_sequence_around_it_is_read(kernel_name: KernelName) -> None:
    kernel = make_kernel(kernel_name, TINY, {}, TrainingSpec(batch_size=4, learning_rate=0.1))
    reference = make_kernel("reference", TINY, {}, TrainingSpec(batch_size=4, learning_rate=0.1))
    job = make_job(TINY, {}, start(TINY, {}), 9, 1)

    assert trained(kernel, [job])[0] == pytest.approx(trained(reference, [job])[0], abs=1e-6)


def test_a_pool_comes_before_the_relu_in_front_of_it() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4))

    network = read_network(module, (2, 6, 6))

    assert [type(layer) for layer in network.layers] == [Conv, Pool, Relu, Dense]
    assert network.layers[2] == Relu(12)
    assert (network.input_shape, network.output_shape, network.n_parameters) == ((2, 6, 6), (4,), 109)


def test_the_order_holds_every_parameter_once() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(36, 4))

    network = read_network(module, (2, 6, 6))

    assert sorted(network.layout.order()) == list(range(sum(p.numel() for p in module.parameters())))


REFUSED: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "Tanh": ((6,), lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, CLASSES))),
    "buffers": ((6,), lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))),
    "Dropout": ((6,), lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, CLASSES))),
    "no parameters": ((6,), lambda: nn.Sequential(nn.Flatten())),
    "Doubled": ((6,), lambda: nn.Sequential(Doubled(), nn.Linear(6, CLASSES))),
    "dilation": ((1, 8, 8), lambda: nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.Flatten(), nn.Linear(32, 3))),
    "groups": ((2, 8, 8), lambda: nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(72, 3))),
    "ends with a convolution": ((1, 8, 8), lambda: nn.Sequential(nn.Conv2d(1, 2, 3))),
    "ceil_mode": (
        (1, 8, 8),
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(32, 3)
        ),
    ),
    "over": ((2, 6), lambda: nn.Sequential(nn.Linear(6, CLASSES), nn.Flatten())),
}  # fmt: skip


@pytest.mark.parametrize("kernel_name", FAST)
@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_kernel_is_refused_with_the_reason(reason: str, kernel_name: KernelName) -> None:
    shape, make = REFUSED[reason]

    with pytest.raises(UnsupportedError, match=reason):
        make_kernel(kernel_name, SketchRecipe(make, shape, CLASSES), {}, TrainingSpec())


def test_shared_and_frozen_parameters_are_refused() -> None:
    def shared() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, CLASSES))

    def frozen() -> nn.Module:
        module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, CLASSES))
        module[0].requires_grad_(False)
        return module

    for make in (shared, frozen):
        with pytest.raises(UnsupportedError, match="shares or freezes"):
            read_network(make(), (4,))


def test_a_loss_that_changes_the_examples_first_is_refused() -> None:
    class Noisy(SketchRecipe):
        def loss(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
            return super().loss(module, x + torch.randn_like(x), y)

    with pytest.raises(UnsupportedError, match="changes the examples"):
        make_kernel("explicit", Noisy(lambda: nn.Linear(4, CLASSES), (4,), CLASSES), {}, TrainingSpec())


def test_a_loss_with_a_weight_penalty_is_found_out_by_its_gradient() -> None:
    class Penalised(SketchRecipe):
        def loss(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
            penalty = sum(p.square().sum() for p in module.parameters())
            return super().loss(module, x, y) + penalty

    recipe = Penalised(lambda: nn.Linear(4, CLASSES), (4,), CLASSES)
    for name in FAST:
        for momentum in (0.0, 0.9):  # by a step of each layer, and by all gradients
            with pytest.raises(UnsupportedError, match="differs from autograd"):
                make_kernel(name, recipe, {}, TrainingSpec(momentum=momentum))


@pytest.mark.parametrize("name", ["reference", "explicit"])
def test_only_the_stacked_kernel_leaves_the_processor(name: KernelName) -> None:
    with pytest.raises(UnsupportedError, match="no kernel"):
        make_kernel(name, TINY, {}, TrainingSpec(), device="cuda")
