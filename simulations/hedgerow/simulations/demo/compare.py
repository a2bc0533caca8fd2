"""Untrained, local-only and pooled models beside the federated one: ``python -m hedgerow.simulations.demo.compare``.

A child process, because it loads torch. Reads what each device stored (no real server could), trains without privacy
with the same code as the devices, and scores on the recipe's public set, as the server does each round.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import torch

from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.edge_agent.trainer.local import initial_model, pooled, train_locally
from hedgerow.models.recipe import Floats, Parameters, Recipe, TrainingSet, find_recipe
from hedgerow.shared.job import Job
from hedgerow.shared.profile import read_profile


class CompareRequest(msgspec.Struct, frozen=True):
    """What to compare: a job, and the folders of the devices that took part."""

    job: Job
    homes: tuple[str, ...]


class Comparison(msgspec.Struct, frozen=True):
    """Scores on the public set; ``local_only`` is the mean over devices."""

    untrained: float
    local_only: float
    pooled: float


def compare(request: CompareRequest) -> Comparison:
    """Return the scores of the three models that the federated one is judged beside."""
    torch.set_num_threads(1)
    job = request.job
    recipe = find_recipe(job.recipe)
    parameters = recipe.check(job.parameters)
    sets = [_training_set(recipe, parameters, job, Path(home)) for home in request.homes]
    start = initial_model(recipe, parameters, job.seed)
    epochs = job.rounds * job.training.local_epochs
    local = [
        train_locally(recipe, parameters, part, job.training, model=start, epochs=epochs) for part in sets
    ]
    together = train_locally(recipe, parameters, pooled(sets), job.training, model=start, epochs=epochs)
    return Comparison(
        untrained=_score(recipe, parameters, start),
        local_only=float(np.mean([_score(recipe, parameters, model) for model in local])),
        pooled=_score(recipe, parameters, together),
    )


def _training_set(recipe: Recipe, parameters: Parameters, job: Job, home: Path) -> TrainingSet:
    profile = read_profile(home / "profile.toml")
    store = SampleStore(home / "samples.db", max_bytes=0, max_age_s=None, read_only=True)
    try:
        batch = store.read(recipe.input_spec(parameters).name, limit=job.training.max_samples)
    finally:
        store.close()
    private = job.privacy.mode != "none"
    return recipe.training_set(batch.arrays, batch.labels, profile, parameters, private)


def _score(recipe: Recipe, parameters: Parameters, model: Vector) -> float:
    module = recipe.build(parameters)
    FlatParameters(module).load(model)
    module.eval()

    def predict(x: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(np.ascontiguousarray(x))).numpy(), np.float32)

    return recipe.score(predict, recipe.public_set(parameters), parameters)[recipe.metric]


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=CompareRequest)
    sys.stdout.buffer.write(msgspec.json.encode(compare(asked)) + b"\n")
