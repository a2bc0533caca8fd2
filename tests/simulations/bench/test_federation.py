"""A fleet in one process learns; with privacy it stays within ε; and its faults are found by what it learned."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from tests.support.configs import CONFIGS

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.models.export.vector import load_vector
from hedgerow.models.pump import CHANNELS, FAULTS, Machine, draw_machine
from hedgerow.models.pump.public import cut
from hedgerow.models.recipe import Floats, Predict, Recipe, TrainingSet, find_recipe
from hedgerow.models.recipes.digits import device_split
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import read_profile
from hedgerow.shared.scoring import Scorer
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.bench.federation import Federated, federate

PROFILE = read_profile(CONFIGS / "profiles" / "pump.toml")
ROWS, WINDOWS, DEVICES = PROFILE.window.length, 300, 5


def job(name: str, **changes: object) -> Job:
    read = read_toml(CONFIGS / "jobs" / f"{name}.toml", Job)
    parameters = find_recipe(read.recipe).check(read.parameters)
    return msgspec.structs.replace(read, parameters=parameters, **changes)


def predictor(recipe: Recipe, asked: Job, vector: Floats) -> Predict:
    module = recipe.build(asked.parameters)
    load_vector(module, vector)

    def predict(x: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(x)).numpy())

    return predict


def running(seed: int, windows: int) -> tuple[Machine, Floats]:
    machine = Machine(draw_machine(seed), seed)
    return machine, cut(machine.rows(ROWS * windows), ROWS, ROWS).astype(np.float32)


@pytest.fixture(scope="module")
def fleet() -> list[tuple[Machine, Floats]]:
    return [running(seed, WINDOWS) for seed in range(DEVICES)]


@pytest.fixture(scope="module")
def trained(fleet: list[tuple[Machine, Floats]]) -> Federated:
    asked, recipe = job("pump-anomaly"), find_recipe("anomaly-autoencoder")
    sets = [
        recipe.training_set(windows, [None] * WINDOWS, PROFILE, asked.parameters, True)
        for _, windows in fleet
    ]
    return federate(recipe, asked, sets)


def test_the_private_pump_job_beats_the_untrained_model_within_its_budget(trained: Federated) -> None:
    asked, recipe = job("pump-anomaly"), find_recipe("anomaly-autoencoder")
    public = recipe.public_set(asked.parameters)
    untrained = initial_model(recipe, asked.parameters, asked.seed)

    before = recipe.score(predictor(recipe, asked, untrained), public, asked.parameters)
    after = recipe.score(predictor(recipe, asked, trained.model), public, asked.parameters)

    assert trained.epsilon is not None and 7 < trained.epsilon <= 8
    assert before[recipe.metric] < 0.1
    assert after[recipe.metric] > 0.4


def test_healthy_pumps_stay_quiet_and_every_fault_is_named_within_two_windows(
    fleet: list[tuple[Machine, Floats]], trained: Federated
) -> None:
    asked, recipe = job("pump-anomaly"), find_recipe("anomaly-autoencoder")
    predict = predictor(recipe, asked, trained.model)
    rule = recipe.scoring(asked.parameters)
    assert rule is not None
    scorer = Scorer(rule, PROFILE)
    false_alarms, named = 0, 0
    for seed, (_, windows) in enumerate(fleet):
        fitted = scorer.fit(windows, predict)
        for kind in ("bearing", "cavitation", "valve"):
            machine, _ = running(seed, WINDOWS)
            healthy = cut(machine.rows(ROWS * 60), ROWS, ROWS).astype(np.float32)
            machine.inject(FAULTS[kind].at(machine.row))
            faulty = cut(machine.rows(ROWS * 2), ROWS, ROWS).astype(np.float32)
            quiet, _ = scorer.judge_all(healthy, predict(scorer.transform(healthy, fitted)), fitted)
            loud, _ = scorer.judge_all(faulty, predict(scorer.transform(faulty, fitted)), fitted)
            false_alarms += sum(score.alarm for score in quiet)
            named += any(s.alarm and s.attribution[0].channel == FAULTS[kind].planted for s in loud)

    assert false_alarms <= 9, "more than one window in a hundred"
    assert named >= 3 * DEVICES - 1


def test_digits_split_unevenly_come_close_to_the_pooled_model() -> None:
    recipe, asked = find_recipe("digits-cnn"), job("digits", rounds=7)
    sets = [
        recipe.training_set(share.images, share.labels.tolist(), None, asked.parameters, False)
        for share in device_split(DEVICES, 1.0, 0)
    ]
    public = recipe.public_set(asked.parameters)

    found = federate(recipe, asked, sets)
    accuracy = recipe.score(predictor(recipe, asked, found.model), public, asked.parameters)["accuracy"]

    assert found.epsilon is None
    assert accuracy > 0.85


def test_without_privacy_the_same_seed_gives_the_same_model() -> None:
    recipe, asked = find_recipe("digits-cnn"), job("digits", rounds=2)
    share = device_split(2, 1.0, 0)[0].take(np.arange(60))
    sets = [recipe.training_set(share.images, share.labels.tolist(), None, asked.parameters, False)]

    first, again = federate(recipe, asked, sets), federate(recipe, asked, sets)

    assert np.array_equal(first.model, again.model)


def test_a_mode_that_is_not_built_and_a_loose_delta_are_refused() -> None:
    recipe = find_recipe("anomaly-autoencoder")
    data = TrainingSet(np.zeros((2000, ROWS, len(CHANNELS)), np.float32), None)
    local = job("pump-anomaly")
    local = msgspec.structs.replace(local, privacy=msgspec.structs.replace(local.privacy, mode="local"))

    with pytest.raises(ConfigError, match="local"):
        federate(recipe, local, [data])
    with pytest.raises(ConfigError, match="delta"):
        federate(recipe, job("pump-anomaly"), [data])
