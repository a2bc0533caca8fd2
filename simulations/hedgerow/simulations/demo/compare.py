"""Untrained, local-only and pooled models beside the federated one: ``python -m hedgerow.simulations.demo.compare``.

A child process, because it loads torch. Reads what each device stored (no real server could), trains without privacy
with the same code as the devices, and scores on the recipe's public set, as the server does each round. Where the
devices replay recordings, a public set of simulated pumps says little of them: then all four models are scored on
windows of the recordings that nobody trained on and that the labels call normal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from hedgerow.edge_agent.inference.bundle_folder import read_bundle
from hedgerow.edge_agent.inference.runtime import open_runtime
from hedgerow.edge_agent.samples.store import SampleStore, StoredBatch
from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.edge_agent.trainer.local import initial_model, pooled, train_locally
from hedgerow.models.recipe import Floats, Parameters, Predict, PublicSet, Recipe, TrainingSet, find_recipe
from hedgerow.shared.job import Job
from hedgerow.shared.profile import read_profile
from hedgerow.simulations.demo.comparing import CompareRequest, Comparison


def compare(request: CompareRequest) -> Comparison:
    """Return the scores of the three models that the federated one is judged beside."""
    torch.set_num_threads(1)
    job = request.job
    recipe = find_recipe(job.recipe)
    parameters = recipe.check(job.parameters)
    homes = [Path(home) for home in request.homes]
    sets = [_training_set(recipe, parameters, job, home) for home in homes]
    public = _held_out(recipe, parameters, job, homes, request.held_out_us) or recipe.public_set(parameters)

    def score(model: Vector) -> float:
        return recipe.score(_predict(recipe, parameters, model), public, parameters)[recipe.metric]

    start = initial_model(recipe, parameters, job.seed)
    epochs = job.rounds * job.training.local_epochs
    local = [
        train_locally(recipe, parameters, part, job.training, model=start, epochs=epochs) for part in sets
    ]
    together = train_locally(recipe, parameters, pooled(sets), job.training, model=start, epochs=epochs)
    served = None
    if request.held_out_us:
        served = recipe.score(_served(homes[0], job.name), public, parameters)[recipe.metric]
    return Comparison(
        score(start), float(np.mean([score(model) for model in local])), score(together), served
    )


def _training_set(recipe: Recipe, parameters: Parameters, job: Job, home: Path) -> TrainingSet:
    batch = _stored(recipe, parameters, home, job.training.max_samples)
    profile = read_profile(home / "profile.toml")
    return recipe.training_set(batch.arrays, batch.labels, profile, parameters, job.privacy.mode != "none")


def _held_out(
    recipe: Recipe, parameters: Parameters, job: Job, homes: Sequence[Path], ends_us: Sequence[Sequence[int]]
) -> PublicSet | None:
    """Return the windows with these ends as the model takes them, None where none are asked for."""
    parts = []
    for home, ends in zip(homes, ends_us, strict=False):
        batch = _stored(recipe, parameters, home, None)
        windows = batch.arrays[np.isin(batch.end_us, np.array(ends, np.int64))]
        if len(windows):
            profile = read_profile(home / "profile.toml")
            private = job.privacy.mode != "none"
            parts.append(recipe.training_set(windows, [None] * len(windows), profile, parameters, private).x)
    if not parts:
        return None
    x = np.concatenate(parts)
    nobody = np.empty(0, np.int64)
    return PublicSet(x, np.zeros(len(x), np.int64), nobody, nobody)


def _stored(recipe: Recipe, parameters: Parameters, home: Path, limit: int | None) -> StoredBatch:
    store = SampleStore(home / "samples.db", max_bytes=0, max_age_s=None, read_only=True)
    try:
        return store.read(recipe.input_spec(parameters).name, limit=limit)
    finally:
        store.close()


def _predict(recipe: Recipe, parameters: Parameters, model: Vector) -> Predict:
    module = recipe.build(parameters)
    FlatParameters(module).load(model)
    module.eval()

    def predict(x: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(np.ascontiguousarray(x))).numpy(), np.float32)

    return predict


def _served(home: Path, model: str) -> Predict:
    """Return the float32 ONNX model in a device's slot, as the device would run it."""
    bundle = read_bundle(home / "slots" / model / "active")
    manifest = bundle.manifest
    artefact = next(a for a in manifest.artefacts if (a.runtime, a.precision) == ("onnxruntime", "float32"))
    shapes = manifest.input.shape, manifest.output.shape
    runtime = open_runtime(artefact.runtime, bundle.verified(artefact), artefact.precision, *shapes)
    return lambda x: np.concatenate([runtime.infer(x[n : n + 1]).copy() for n in range(len(x))])


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=CompareRequest)
    sys.stdout.buffer.write(msgspec.json.encode(compare(asked)) + b"\n")
