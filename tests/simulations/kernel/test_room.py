"""Memory that a kernel lends for updates: the same updates as in memory of one's own, and no more of it than must be."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.simulation_kernels import SketchRecipe, kernels, make_job, small, start, trained
from torch import nn

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.explicit import ExplicitKernel
from hedgerow.simulations.kernel.protocol import KernelName

ALL: tuple[KernelName, ...] = ("reference", "explicit", "stacked")


@pytest.mark.parametrize("options", [{}, {"proximal_mu": 0.5}, {"momentum": 0.9}, {"optimizer": "adam"}])
@pytest.mark.parametrize("name", ["digits-cnn", "mlp"])
@pytest.mark.parametrize("kernel_name", ALL)
def test_updates_are_the_same_bits_in_the_kernels_own_room(
    kernel_name: KernelName, name: str, options: dict[str, Any]
) -> None:
    recipe, parameters = small(name)
    (kernel,) = kernels((kernel_name,), recipe, parameters, **options)
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, n, n) for n in (5, 0, 17)]
    alone = [trained(kernel, [job])[0][0] for job in jobs]

    for job, wanted in zip(jobs, alone, strict=True):
        room = kernel.room(1)
        kernel.train([job], room)
        assert room.shape == (1, kernel.n_parameters)
        assert np.array_equal(room[0], wanted)
    together, _ = trained(kernel, jobs)
    room = kernel.room(3)
    kernel.train(jobs, room)

    assert np.array_equal(room, together)


@pytest.mark.parametrize("kernel_name", ["explicit", "stacked"])
def test_private_updates_too(kernel_name: KernelName) -> None:
    recipe, parameters = small("digits-cnn")
    (kernel,) = kernels((kernel_name,), recipe, parameters)
    plan = StepPlan(0.5, 1.0, 0.5, 3)
    model = start(recipe, parameters)
    job = make_job(recipe, parameters, model, 9, 1)._replace(private=plan, noise_key=(1, 2, 3))
    wanted = trained(kernel, [job])[0]

    room = kernel.room(1)
    kernel.train([job], room)

    assert np.array_equal(room, wanted)


@pytest.mark.parametrize(("options", "copies"), [({}, 1), ({"momentum": 0.9}, 3), ({"optimizer": "adam"}, 5)])
def test_one_device_alone_takes_parameters_and_with_plain_sgd_no_second_copy(
    options: dict[str, Any], copies: int
) -> None:
    # One dense layer is nearly all of it, and larger than what is held of a gradient at once.
    recipe = SketchRecipe(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 20000), nn.Linear(20000, 3)), (1, 6, 6), 3
    )
    kernel = ExplicitKernel(recipe, {}, TrainingSpec(batch_size=4, **options))
    model = start(recipe, {})
    job = make_job(recipe, {}, model, 9, 1)
    kernel.train([job], kernel.room(1))
    held = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(kernel)
    }

    assert sum(size >= model.nbytes for size in held.values()) == copies
    assert sum(held.values()) < (copies + 0.7) * model.nbytes
    tracemalloc.start()
    try:
        kernel.train([job], kernel.room(1))
        assert tracemalloc.get_traced_memory()[1] < model.nbytes / 2
    finally:
        tracemalloc.stop()


def _tensors(root: object) -> list[torch.Tensor]:
    """Every tensor and array that can be reached from an object of this package."""
    seen: set[int] = set()
    found: list[torch.Tensor] = []
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            found.append(one)
        elif isinstance(one, np.ndarray):
            found.append(torch.from_numpy(one))
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif type(one).__module__.startswith("hedgerow.simulations.kernel"):
            waiting += vars(one).values() if hasattr(one, "__dict__") else []
    return found
