"""Steps layer by layer, without a gradient of the whole model, have the bits of steps after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support.simulation_kernels import SMALL, SketchRecipe, kernels, make_job, small, start, trained
from torch import nn

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import Recipe
from hedgerow.simulations.kernel import bank
from hedgerow.simulations.kernel.bank import LayerBank, rows_at_once
from hedgerow.simulations.kernel.network import Conv, Dense, read_network
from hedgerow.simulations.kernel.protocol import LocalJob


def both_ways(recipe: Recipe, parameters: dict[str, Any], job: LocalJob, **options: Any) -> None:
    """Hold a job to the same one with a correction of zero, for which all gradients must be there first."""
    (kernel,) = kernels(("explicit",), recipe, parameters, **options)
    ours, results = trained(kernel, [job])
    theirs, expected = trained(kernel, [job._replace(correction=np.zeros_like(job.model))])

    assert np.array_equal(ours, theirs)
    assert results == expected
    assert np.abs(ours).max() > 1e-4


@pytest.mark.parametrize("n", [1, 5, 17])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_shipped_recipes(name: str, n: int) -> None:
    recipe, parameters = small(name)
    both_ways(recipe, parameters, make_job(recipe, parameters, start(recipe, parameters), n, n))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_shipped_recipes_by_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single rows are products of a vector, which libraries round in another way: the same but for that."""
    monkeypatch.setattr(bank, "PART", 13)
    recipe, parameters = small(name)
    layers = read_network(recipe.build(parameters), tuple(recipe.input_spec(parameters).shape)).layers
    assert any(isinstance(layer, Dense) and rows_at_once(layer) for layer in layers)
    job = make_job(recipe, parameters, start(recipe, parameters), 9, 1)
    (kernel,) = kernels(("explicit",), recipe, parameters)
    ours, _ = trained(kernel, [job])
    theirs, _ = trained(kernel, [job._replace(correction=np.zeros_like(job.model))])

    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(ours).max()


@pytest.mark.parametrize("batch", [2, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_too_large_for_one_part(bias: bool, batch: int) -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(700, 600, bias), nn.ReLU(), nn.Linear(600, 601, bias), nn.ReLU(), nn.Linear(601, 3)
        )  # fmt: skip

    recipe = SketchRecipe(make, (7, 100), 3)
    both_ways(recipe, {}, make_job(recipe, {}, start(recipe, {}), 37, 1), batch_size=batch)


def test_convolutions_of_all_kinds_lead_back_by_the_weights_before_their_step() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(16, 5, 3, stride=2), nn.Flatten(), nn.Linear(45, 3),
        )  # fmt: skip

    recipe = SketchRecipe(make, (1, 14, 14), 3)
    both_ways(recipe, {}, make_job(recipe, {}, start(recipe, {}), 11, 1))


def test_plain_and_other_jobs_share_a_kernels_parameters_and_leave_each_other_alone() -> None:
    recipe, parameters = small("image-cnn")
    model = start(recipe, parameters)
    plain = make_job(recipe, parameters, model, 9, 1)
    private = plain._replace(private=StepPlan(0.5, 1.0, 0.5, 3), noise_key=(1, 2, 3))
    corrected = plain._replace(correction=np.full_like(model, 0.1))
    jobs = [plain, private, corrected, private, plain]
    alone = [trained(kernels(("explicit",), recipe, parameters)[0], [job])[0][0] for job in jobs]

    together, _ = trained(kernels(("explicit",), recipe, parameters)[0], jobs)

    assert np.array_equal(together, np.array(alone))
    assert not np.array_equal(together[0], together[2])


def test_no_more_of_a_gradient_is_held_than_the_largest_layers_or_one_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 30), nn.Linear(30, 2))
    network = read_network(module, (1, 6, 6))
    owners = [layer for layer in network.layers if isinstance(layer, Dense | Conv)]
    for part, room in ((10_000, 64 * 30 + 30), (640, 640 + 30), (60, 64 + 30)):
        monkeypatch.setattr(bank, "PART", part)
        held = LayerBank(network, torch.zeros(network.n_parameters), 0.1)
        blocks = [held.block(layer.at, layer.weights) for layer in owners]
        assert {block.gradients.untyped_storage().nbytes() for block in blocks} == {4 * room}
        assert [block.gradients.shape for block in blocks] == [(1, layer.weights) for layer in owners]
        for layer in owners:
            biases = held.block(layer.at + layer.weights, layer.outputs)
            assert biases.values.storage_offset() == layer.at + layer.weights
            assert biases.gradients.storage_offset() + layer.outputs == room
