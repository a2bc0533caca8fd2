"""Training on one machine without any fleet: for comparing local-only and pooled models with the federated one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import Parameters, Recipe, TrainingSet
from hedgerow.shared.job import TrainingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence


def initial_model(recipe: Recipe, parameters: Parameters, seed: int) -> Vector:
    """Return an untrained model, float32 ``(n_parameters,)``; the same for the same seed."""
    torch.manual_seed(seed)
    return FlatParameters(recipe.build(parameters)).values()


def train_locally(
    recipe: Recipe,
    parameters: Parameters,
    data: TrainingSet,
    training: TrainingSpec,
    *,
    model: Vector,
    epochs: int,
    seed: int = 0,
) -> Vector:
    """Return ``model`` trained on ``data`` for ``epochs`` epochs without privacy, float32 ``(n_parameters,)``.

    The optimizer keeps its state throughout; in a fleet each round starts it anew.
    """
    spec = TrainingSpec(
        local_epochs=epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        optimizer=training.optimizer,
        momentum=training.momentum,
    )
    trainer = PlainTrainer(recipe, recipe.build(parameters), data)
    trained: Vector = model + trainer.train(model, spec, (seed,)).delta
    return trained


def pooled(sets: Sequence[TrainingSet]) -> TrainingSet:
    """Return the union of several devices' examples: for simulation, no real server could make it."""
    y = [part.y for part in sets if part.y is not None]
    if y and len(y) != len(sets):
        raise ValueError("some sets have labels and some have not")
    return TrainingSet(np.concatenate([part.x for part in sets]), np.concatenate(y) if y else None)
