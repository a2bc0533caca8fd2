"""The two real recipes through a device's session: they learn without privacy, and keep to the ledger with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.trainer.flat import FlatParameters, Vector
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.edge_agent.trainer.session import Session
from hedgerow.models.pump.machine import Machine, draw_machine
from hedgerow.models.recipe import Parameters, Recipe, find_recipe, recipe_hash
from hedgerow.models.recipes import digits
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction
from hedgerow.shared.packing import unpack
from hedgerow.shared.privacy.statement import recompute_job
from hedgerow.shared.profile import read_profile
from hedgerow.shared.specs import Sample

PROFILE = Path(__file__).parents[3] / "firmware_configs" / "profiles" / "pump.toml"
PARAMETERS: dict[str, Parameters] = {"anomaly-autoencoder": {"rows": 16, "code": 8}, "digits-cnn": {}}
ROUNDS = 5


def samples_of(name: str) -> list[Sample]:
    if name == "digits-cnn":
        held = digits.device_split(5, 10.0, 3)[0]
        return [
            Sample("digit", image, t, t, "raw", label=int(label))
            for t, (image, label) in enumerate(zip(held.images, held.labels, strict=True))
        ]
    rows = Machine(draw_machine(3), 5).rows(16 * 200).astype(np.float32)
    return [Sample("window", window, t, t, "raw") for t, window in enumerate(rows.reshape(200, 16, -1))]


def session(folder: Path, name: str) -> Session:
    store = SampleStore(folder / "samples.db", max_bytes=10**8, max_age_s=None)
    store.add(samples_of(name))
    store.close()
    return Session(
        "job",
        open_samples=lambda: SampleStore(folder / "samples.db", max_bytes=0, max_age_s=None, read_only=True),
        ledger=DeviceLedger(folder / "ledger.db"),
        find_recipe=find_recipe,
        profile=read_profile(PROFILE),
        fetch_model=lambda _: b"",
    )


def instruction(recipe: Recipe, model: Vector, number: int, privacy: PrivacySpec) -> TrainInstruction:
    data = model.astype("<f4").tobytes()
    return TrainInstruction(
        job_id="job",
        round=number,
        exchange=0,
        recipe=recipe.name,
        recipe_hash=recipe_hash(recipe),
        parameters=PARAMETERS[recipe.name],
        privacy=privacy,
        training=TrainingSpec(batch_size=64, learning_rate=0.005, optimizer="adam", local_epochs=3),
        packing="float32",
        rounds=ROUNDS,
        n_parameters=model.size,
        model_sha256=sha256_hex(data),
        deadline_s=60,
        model=data,
    )


def score(recipe: Recipe, model: Vector) -> float:
    parameters = PARAMETERS[recipe.name]
    module = recipe.build(parameters).eval()
    FlatParameters(module).load(model)
    with torch.no_grad():
        found = recipe.score(
            lambda x: module(torch.from_numpy(x)).numpy(), recipe.public_set(parameters), parameters
        )
    return found[recipe.metric]


def trained(folder: Path, recipe: Recipe, privacy: PrivacySpec) -> tuple[float, float]:
    device = session(folder, recipe.name)
    model = initial_model(recipe, PARAMETERS[recipe.name], seed=1)
    before = score(recipe, model)
    for number in range(1, ROUNDS + 1):
        header, payload = device.answer(instruction(recipe, model, number, privacy))
        assert header.error is None
        model = model + unpack(payload, model.size, "float32")
    return before, score(recipe, model)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_learns_on_one_device(tmp_path: Path, name: str) -> None:
    before, after = trained(tmp_path, find_recipe(name), PrivacySpec("none"))

    assert after > before + 0.1


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_trains_with_privacy_and_the_ledger_shows_it_kept_to_the_budget(
    tmp_path: Path, name: str
) -> None:
    _, after = trained(tmp_path, find_recipe(name), PrivacySpec("example", 8.0, 1e-4))

    assert np.isfinite(after)
    found = recompute_job(tmp_path / "ledger.db", "job")
    assert found.within_budget
    assert found.rounds_released == ROUNDS
    assert found.epsilon_pld > 7.9
