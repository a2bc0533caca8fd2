"""Training without privacy: SGD and FedProx by hand calculation, repeatable, and the local helpers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support.tiny_recipe import RECIPE, WIDTH, examples

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.edge_agent.trainer.local import initial_model, pooled, train_locally
from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import Floats, TrainingSet
from hedgerow.shared.job import TrainingSpec


def trainer(x: Floats, layer: str = "linear") -> PlainTrainer:
    return PlainTrainer(RECIPE, RECIPE.build({"layer": layer}), TrainingSet(x, None))


def model() -> Floats:
    return np.linspace(-1, 1, WIDTH + 1).astype(np.float32)


def mean_gradient(x: Floats, vector: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    wide = x.astype(np.float64)
    error = 2 * (wide @ vector[:WIDTH] + vector[WIDTH] - wide.sum(axis=1))
    return np.concatenate(((error[:, None] * wide).mean(axis=0), [error.mean()]))


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_full_batches_follow_gradient_descent_by_hand(mu: float) -> None:
    x = examples(12)
    spec = TrainingSpec(local_epochs=3, batch_size=12, learning_rate=0.05, momentum=0.5, proximal_mu=mu)

    result = trainer(x).train(model(), spec, (1,))

    start = model().astype(np.float64)
    vector, speed = start.copy(), np.zeros(WIDTH + 1)
    for _ in range(3):
        speed = 0.5 * speed + mean_gradient(x, vector) + mu * (vector - start)
        vector = vector - 0.05 * speed
    assert result.delta == pytest.approx(vector - start, rel=1e-4, abs=1e-6)
    assert result.n_samples == 12


def test_the_pull_keeps_the_model_nearer_to_the_global_one() -> None:
    def moved(mu: float) -> float:
        spec = TrainingSpec(local_epochs=20, batch_size=4, learning_rate=0.05, proximal_mu=mu)
        return float(np.linalg.norm(trainer(examples(12)).train(model(), spec, (1,)).delta))

    assert moved(10.0) < moved(1.0) < moved(0.0)


def test_training_learns_and_reports_its_loss() -> None:
    spec = TrainingSpec(local_epochs=30, batch_size=8, learning_rate=0.05)
    subject = trainer(examples(64))

    first = subject.train(model(), TrainingSpec(batch_size=8, learning_rate=0.05), (1,))
    last = subject.train(model(), spec, (1,))

    assert last.loss < 0.01 * first.loss
    assert model() + last.delta == pytest.approx([1, 1, 1, 0], abs=0.1)


def test_the_same_seed_repeats_and_another_does_not() -> None:
    spec = TrainingSpec(local_epochs=2, batch_size=3, learning_rate=0.05)
    subject = trainer(examples(16))

    first, again, other = (subject.train(model(), spec, seed).delta for seed in ((1, 2), (1, 2), (1, 3)))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_last_batch_may_be_short_and_every_example_counts() -> None:
    x = examples(7)
    spec = TrainingSpec(batch_size=4, learning_rate=0.0001)

    result = trainer(x).train(model(), spec, (1,))

    wide = x.astype(np.float64)
    errors = (wide @ model()[:WIDTH] + model()[WIDTH] - wide.sum(axis=1)) ** 2
    assert result.loss == pytest.approx(errors.mean(), rel=0.01)


def test_a_model_without_parameters_changes_nothing() -> None:
    result = trainer(examples(4), "empty").train(np.zeros(0, np.float32), TrainingSpec(), (1,))

    assert result.delta.shape == (0,)


def test_a_model_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a model of"):
        trainer(examples(4)).train(np.zeros(3, np.float32), TrainingSpec(), (1,))


def test_flat_parameters_keep_the_modules_order_and_follow_it() -> None:
    module = RECIPE.build({"layer": "convolution"})
    before = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()

    flat = FlatParameters(module)

    assert np.array_equal(flat.values(), before)
    with torch.no_grad():
        next(module.parameters()).add_(1.0)
    changed = flat.minus(before)
    assert changed[:4] == pytest.approx([1, 1, 1, 1])
    assert not changed[4:].any()


def test_parameters_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        FlatParameters(torch.nn.Linear(2, 2).double())


def test_training_locally_beats_the_untrained_model_on_the_public_set() -> None:
    start = initial_model(RECIPE, {}, seed=4)
    data = pooled([TrainingSet(examples(20, seed), None) for seed in range(3)])
    spec = TrainingSpec(batch_size=8, learning_rate=0.05)

    trained = train_locally(RECIPE, {}, data, spec, model=start, epochs=20)

    assert np.array_equal(start, initial_model(RECIPE, {}, seed=4))
    assert len(data.x) == 60
    assert np.abs(trained - [1, 1, 1, 0]).max() < 0.1 < np.abs(start - [1, 1, 1, 0]).max()


def test_pooling_joins_labels_or_refuses_half_of_them() -> None:
    labelled = TrainingSet(examples(2), np.array([1, 2], np.int64))

    assert pooled([labelled, labelled]).y is not None
    with pytest.raises(ValueError, match="labels"):
        pooled([labelled, TrainingSet(examples(2), None)])
