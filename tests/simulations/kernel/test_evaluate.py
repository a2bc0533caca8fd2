"""Evaluation: in chunks as in one piece, with dropout off, and no example or model changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.simulation_kernels import SketchRecipe, make_job, small, start
from torch import nn

from hedgerow.simulations.kernel.evaluate import CHUNK, Evaluator


@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_chunks_are_put_together_in_order(n: int) -> None:
    recipe, parameters = small("image-cnn")
    model = start(recipe, parameters)
    job = make_job(recipe, parameters, model, n, 1)
    evaluator = Evaluator(recipe, parameters)

    found, losses = evaluator.forward(model, job.x), evaluator.losses(model, job.x, job.y)

    for place in (0, n // 2, n - 1):
        one = slice(place, place + 1)
        assert found[place] == pytest.approx(evaluator.forward(model, job.x[one])[0], abs=1e-5)
        labels = None if job.y is None else job.y[one]
        assert losses[place] == pytest.approx(evaluator.losses(model, job.x[one], labels)[0], abs=1e-5)
    assert found.dtype == losses.dtype == np.dtype(np.float32)


def test_dropout_is_off() -> None:
    recipe = SketchRecipe(lambda: nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3)), (4,), 3)
    model = start(recipe, {})
    x = np.ones((5, 4), np.float32)

    found = Evaluator(recipe, {}).forward(model, x)

    assert found == pytest.approx(
        np.tile(model[:12].reshape(3, 4).sum(axis=1) + model[12:], (5, 1)), abs=1e-6
    )


def test_nothing_given_is_changed() -> None:
    recipe, parameters = small("digits-cnn")
    model = start(recipe, parameters)
    job = make_job(recipe, parameters, model, 20, 1)
    before = job.x.copy(), model.copy()

    evaluator = Evaluator(recipe, parameters)
    evaluator.forward(model, job.x)
    evaluator.losses(model, job.x, job.y)

    assert np.array_equal(job.x, before[0])
    assert np.array_equal(model, before[1])
    assert torch.is_grad_enabled()


def test_the_result_outlives_the_next_call() -> None:
    recipe, parameters = small("mlp")
    first, second = start(recipe, parameters, 1), start(recipe, parameters, 2)
    job = make_job(recipe, parameters, first, 6, 1)
    evaluator = Evaluator(recipe, parameters)

    found = evaluator.forward(first, job.x)
    kept = found.copy()
    evaluator.forward(second, job.x)

    assert np.array_equal(found, kept)


def lying(model: np.ndarray, offset: int) -> np.ndarray:
    """Return a copy that begins ``offset`` bytes after a cache line does."""
    memory = np.zeros(model.nbytes + 128, np.uint8)
    first = -memory.ctypes.data % 64 + offset
    placed = memory[first : first + model.nbytes].view(np.float32)
    placed[:] = model
    return placed


def test_outputs_are_the_same_bits_wherever_a_model_lies_and_whatever_was_loaded_before() -> None:
    recipe, parameters = small("image-cnn")
    one, two = start(recipe, parameters, 1), start(recipe, parameters, 2)
    job = make_job(recipe, parameters, one, 20, 1)
    expected = [Evaluator(recipe, parameters).forward(model, job.x) for model in (one, two)]
    evaluator = Evaluator(recipe, parameters)
    frozen = lying(one, 0)
    frozen.flags.writeable = False

    for model, wanted in (
        (lying(one, 0), 0), (lying(two, 4), 1), (lying(two, 0), 1), (lying(one, 16), 0), (frozen, 0), (lying(one, 0), 0)
    ):  # fmt: skip
        assert np.array_equal(evaluator.forward(model, job.x), expected[wanted])


def test_a_model_that_changes_in_place_is_seen_as_it_is_and_takes_no_copy() -> None:
    recipe, parameters = small("mlp")
    model, other = lying(start(recipe, parameters, 1), 0), start(recipe, parameters, 2)
    job = make_job(recipe, parameters, model, 6, 1)
    evaluator = Evaluator(recipe, parameters)
    before = evaluator.forward(model, job.x)
    model[:] = other

    assert np.array_equal(
        evaluator.forward(model, job.x), Evaluator(recipe, parameters).forward(other, job.x)
    )
    assert not np.array_equal(evaluator.forward(model, job.x), before)
    assert evaluator._made is not None
    for parameter in evaluator._made.module.parameters():
        assert np.shares_memory(parameter.detach().numpy(), model)


def test_models_of_another_size_are_refused() -> None:
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    x = make_job(recipe, parameters, model, 2, 1).x
    with pytest.raises(ValueError, match="values where the recipe has"):
        Evaluator(recipe, parameters).forward(model[:-1], x)
