"""Single steps and whole programs: norms of examples against their gradients written out, masks, odd sizes, growing buffers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.support.simulation_kernels import SketchRecipe, each_gradient, make_job, small, start
from torch import nn
from torch.nn import functional

from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.buffers import Buffers
from hedgerow.simulations.kernel.compiled import CLIP_SLACK, Compiled, compile_recipe
from hedgerow.simulations.kernel.layout import Layout, Piece
from hedgerow.simulations.kernel.network import Conv, Network, Pool
from hedgerow.simulations.kernel.program import Programs
from hedgerow.simulations.kernel.steps.gemm_conv import GemmConvStep
from hedgerow.simulations.kernel.steps.pool import PoolStep
from hedgerow.simulations.kernel.steps.pooled_conv import PooledConvStep
from hedgerow.simulations.kernel.steps.step import Place, ReluStep

CPU = torch.device("cpu")


def few_positions() -> nn.Module:
    """Its second convolution has 4 positions and 40 taps: norms by positions."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 3),
        nn.ReLU(),
        nn.Conv2d(10, 12, 2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def many_positions() -> nn.Module:
    """Its second convolution has 9 positions and 8 taps: norms by gradients."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)
    )


def whole_vectors() -> nn.Module:
    """Its second convolution has channels that fill vectors: torch's own kernels where one device trains alone."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 3),
    )


class Bench:
    """A sketched recipe compiled for ``devices``, its untrained model loaded for each."""

    def __init__(self, make: Callable[[], nn.Module], devices: int, rows: int) -> None:
        self.recipe = SketchRecipe(make, (1, 6, 6), 3)
        self.compiled: Compiled = compile_recipe(self.recipe, {})
        self.bank = Bank(self.compiled.network, devices, CPU)
        self.programs = Programs(self.compiled, self.bank, CPU)
        self.model = start(self.recipe, {})
        self.bank.load(self.compiled.layout.inward(self.model)[None].expand(devices, -1))
        self.job = make_job(self.recipe, {}, self.model, devices * rows, 1)
        self.shape = (devices, rows)
        self.each = each_gradient(self.recipe, {}, self.job)
        assert self.job.y is not None
        self.target = self.compiled.loss.targets(torch.from_numpy(self.job.y), devices * rows)

    def out(self, vectors: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        found = np.zeros(tuple(vectors.shape), np.float32)
        self.compiled.layout.outward_rows(vectors, found, list(range(len(vectors))))
        return found

    def clipped(
        self, clips: list[float], mask: torch.Tensor | float = 1.0
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        self.bank.set_gradients(torch.zeros((self.shape[0], self.compiled.network.n_parameters)))
        program = self.programs.get(*self.shape)
        program.x.copy_(torch.from_numpy(self.job.x))
        program.add_clipped(self.target, torch.tensor(clips, dtype=torch.float64)[:, None], mask)
        return self.out(self.bank.gradients(self.shape[0]))


@pytest.mark.parametrize("make", [few_positions, many_positions, whole_vectors])
@pytest.mark.parametrize("devices", [1, 3])
def test_every_way_to_norms_clips_each_example_as_its_written_gradient_asks(
    make: Callable[[], nn.Module], devices: int
) -> None:
    bench = Bench(make, devices, 4)
    norms = np.linalg.norm(bench.each, axis=1)
    clips = [float(np.median(part)) for part in norms.reshape(devices, 4)]

    found = bench.clipped(clips)

    for device, clip in enumerate(clips):
        rows = slice(4 * device, 4 * device + 4)
        factor = np.minimum(1, clip / norms[rows]) * CLIP_SLACK
        assert (factor < 0.999).sum() == 2
        assert found[device] == pytest.approx((factor[:, None] * bench.each[rows]).sum(axis=0), abs=2e-6)


@pytest.mark.parametrize("make", [few_positions, many_positions, whole_vectors])
def test_no_example_moves_a_sum_by_more_than_its_clip(make: Callable[[], nn.Module]) -> None:
    bench = Bench(make, 1, 1)

    for clip in (1e-3, 0.1):
        norm = float(np.linalg.norm(bench.clipped([clip]).astype(np.float64)))
        assert clip * (1 - 1e-5) < norm <= clip * (1 + 1e-6)


@pytest.mark.parametrize("make", [few_positions, many_positions, whole_vectors])
def test_masked_rows_add_nothing(make: Callable[[], nn.Module]) -> None:
    bench = Bench(make, 2, 3)
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 0.0])[:, None]

    found = bench.clipped([1e6, 1e6], mask)

    assert found[0] == pytest.approx(bench.each[[0, 2]].sum(axis=0), abs=2e-5)
    assert not found[1].any()


@pytest.mark.parametrize("make", [few_positions, many_positions, whole_vectors])
def test_rows_may_have_weights_of_their_own(make: Callable[[], nn.Module]) -> None:
    bench = Bench(make, 2, 3)
    scale = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.25, 0.0])[:, None]
    program = bench.programs.get(2, 3)
    program.x.copy_(torch.from_numpy(bench.job.x))

    program.gradient(bench.target, scale)

    found = bench.out(bench.bank.gradients(2))
    weighted = (scale.numpy() * bench.each).reshape(2, 3, -1).sum(axis=1)
    assert found == pytest.approx(weighted, abs=2e-5)


def test_both_ways_to_norms_are_taken_where_they_are_cheaper() -> None:
    kinds = []
    for make in (few_positions, many_positions):
        bench = Bench(make, 2, 2)
        layer = bench.compiled.network.layers[2]
        place = Place("2", 2, 2, bench.bank, Buffers(4, CPU))
        step = GemmConvStep(layer, place, torch.zeros((4, 36 * layer.channels)))  # type: ignore[arg-type, union-attr]
        kinds.append(step._ghost)

    assert kinds == [True, False]


def test_programs_of_other_sizes_share_buffers_and_survive_their_growth() -> None:
    bench = Bench(many_positions, 1, 4)
    wanted = bench.clipped([1.0])
    small_program = bench.programs.get(1, 4)
    assert bench.programs.get(1, 4) is small_program
    assert bench.programs.get(1, 2).x.data_ptr() == small_program.x.data_ptr()

    bench.programs.get(1, 64)

    assert bench.programs.get(1, 4) is not small_program
    assert np.array_equal(bench.clipped([1.0]), wanted)


def test_programs_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Programs, "KEPT", 3)
    bench = Bench(many_positions, 1, 4)
    wanted = bench.clipped([1.0])
    for rows in range(1, 9):
        bench.programs.get(1, rows, 8)

    assert len(bench.programs._held) <= 4
    assert np.array_equal(bench.clipped([1.0]), wanted)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 2), (1, 0))],
)
def test_pooling_is_torchs_in_values_and_gradients_with_ties_too(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    draws = torch.Generator().manual_seed(4)
    x = torch.randint(-2, 3, (3, 6, 6, 5), generator=draws).float()
    leaf = x.permute(0, 3, 1, 2).clone().requires_grad_()
    wanted = functional.max_pool2d(leaf, kernel, stride, padding)
    out = (wanted.shape[2], wanted.shape[3])
    held = x.reshape(3, -1).clone()
    bank = Bank(compile_recipe(*small("mlp")).network, 1, CPU)
    step = PoolStep(
        Pool(5, (6, 6), out, kernel, stride, padding), Place("p", 1, 3, bank, Buffers(3, CPU)), held
    )

    step.forward()
    assert torch.equal(step.y.view(3, *out, 5).permute(0, 3, 1, 2), wanted)

    gy = torch.randn(step.y.shape, generator=draws)
    gx = step.attach(gy)
    step.back()
    (gradient,) = torch.autograd.grad(wanted, leaf, gy.view(3, *out, 5).permute(0, 3, 1, 2))
    assert gx is not None
    assert torch.allclose(gx.view(3, 6, 6, 5).permute(0, 3, 1, 2), gradient)


def pooled(layer: Conv, pool: Pool, devices: int, x: torch.Tensor) -> tuple[PooledConvStep, Bank]:
    network = Network((1,), (1,), (layer,), Layout([Piece(0, (layer.weights + layer.filters,), (0,))]))
    bank = Bank(network, devices, CPU)
    draws = torch.Generator().manual_seed(7)
    for block in bank.blocks:
        block.values.normal_(generator=draws)
    return PooledConvStep(
        layer, pool, Place("c", devices, len(x) // devices, bank, Buffers(len(x), CPU)), x
    ), bank


def written(
    layer: Conv, pool: Pool, bank: Bank, device: int
) -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Return one device's weights and biases as torch has them, and the two layers in torch's words."""
    w = bank.block(0, layer.weights).values[device].view(layer.channels, *layer.kernel, layer.filters)
    w = w.permute(3, 0, 1, 2).clone().requires_grad_()
    b = bank.block(layer.weights, layer.filters).values[device].clone().requires_grad_()

    def run(x: torch.Tensor) -> torch.Tensor:
        image = x.view(-1, *layer.size, layer.channels).permute(0, 3, 1, 2)
        return functional.max_pool2d(functional.conv2d(image, w, b, layer.stride, layer.padding), pool.kernel)

    return w, b, run


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "window", "size"),
    [
        (1, (3, 3), (1, 1), (1, 1), (2, 2), (8, 6)),
        (2, (3, 2), (2, 1), (1, 0), (2, 3), (8, 7)),
        (3, (1, 1), (1, 2), (0, 0), (1, 2), (3, 7)),
        (1, (2, 2), (3, 3), (2, 1), (3, 1), (4, 7)),
    ],
)
def test_a_convolution_and_its_pool_in_one_are_torchs_in_values_and_gradients_with_ties_too(
    devices: int,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    window: tuple[int, int],
    size: tuple[int, int],
) -> None:
    draws = torch.Generator().manual_seed(5)
    rows = 4
    x = torch.randint(-1, 2, (devices * rows, *size, channels), generator=draws).float()
    x[:, : size[0] // 2] = 0  # flat, so that all of a window's outputs are the same
    sides = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, kernel, stride, strict=True)]
    out = (sides[0] // window[0], sides[1] // window[1])
    layer = Conv(channels, 5, size, (sides[0], sides[1]), kernel, stride, padding, True, 0, True, True)
    pool = Pool(5, layer.out, out, window, window, (0, 0))
    assert PooledConvStep.fits(layer, pool)
    step, bank = pooled(layer, pool, devices, x.view(len(x), -1))
    gy = torch.randn(step.y.shape, generator=draws)
    each = []
    for device in range(devices):
        part = slice(device * rows, (device + 1) * rows)
        w, b, run = written(layer, pool, bank, device)
        wanted = run(x[part])
        gradient = gy[part].view(rows, *out, 5).permute(0, 3, 1, 2)
        each += [
            torch.autograd.grad((run(x[n : n + 1]) * g[None]).sum(), (w, b))
            for n, g in zip(range(part.start, part.stop), gradient, strict=True)
        ]
        step.forward()
        assert torch.allclose(step.y[part].view(rows, *out, 5).permute(0, 3, 1, 2), wanted, atol=1e-5)

    step.attach(gy.clone())
    step.gradient()

    flat = [torch.cat([w.permute(1, 2, 3, 0).reshape(-1), b]) for w, b in each]
    sums = torch.stack(flat).view(devices, rows, -1).sum(1)
    assert torch.allclose(bank.gradients(devices), sums, atol=1e-4)

    step.forward()
    step.attach(gy.clone())
    total = torch.zeros(len(x), dtype=torch.float64)
    step.add_norms(total)
    assert total.numpy() == pytest.approx(torch.stack(flat).square().sum(1).numpy(), rel=1e-4)
    bank.set_gradients(torch.zeros_like(sums))
    step.add_weighted(torch.full((devices, rows), 0.5))
    assert torch.allclose(bank.gradients(devices), sums / 2, atol=1e-4)


def test_windows_that_overlap_or_are_cut_off_keep_their_pool() -> None:
    layer = Conv(1, 5, (8, 8), (8, 8), (3, 3), (1, 1), (1, 1), True, 0, True, True)

    assert PooledConvStep.fits(layer, Pool(5, (8, 8), (4, 4), (2, 2), (2, 2), (0, 0)))
    for out, window, stride, padding in (
        ((7, 7), (2, 2), (1, 1), (0, 0)),
        ((2, 2), (3, 3), (3, 3), (0, 0)),
        ((4, 4), (3, 3), (2, 2), (1, 1)),
        ((8, 8), (1, 1), (1, 1), (0, 0)),
    ):
        assert not PooledConvStep.fits(layer, Pool(5, (8, 8), out, window, stride, padding))
    assert not PooledConvStep.fits(layer, None)
    assert not PooledConvStep.fits(
        layer._replace(first=False), Pool(5, (8, 8), (4, 4), (2, 2), (2, 2), (0, 0))
    )


def test_relu_stops_gradients_where_it_stopped_values_and_lets_nan_through() -> None:
    x = torch.tensor([[-1.0, 0.0, 2.0, float("nan")]])
    step = ReluStep(x)
    gy = torch.ones((1, 4))

    step.forward()
    step.attach(gy)
    step.back()

    assert step.y[0, :3].tolist() == [0.0, 0.0, 2.0]
    assert step.y[0, 3].isnan()
    assert gy[0, :3].tolist() == [0.0, 0.0, 1.0]


def test_a_compiled_model_is_the_modules_in_another_order() -> None:
    recipe, parameters = small("image-cnn")
    compiled = compile_recipe(recipe, parameters)
    vector = start(recipe, parameters)

    inward = compiled.layout.inward(vector)

    assert not compiled.layout.plain
    assert sorted(inward.tolist()) == sorted(vector.tolist())
