"""What real devices would store is what simulated ones train on, before the recipe's transform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_scenarios import population, scenario

from hedgerow.models.recipe import find_recipe
from hedgerow.simulations.population.raw import raw_population

DIGITS: dict[str, Any] = {"population__partition": {"kind": "dirichlet", "alpha": 0.3}}
VECTORS: dict[str, Any] = {
    "job__recipe": "mlp",
    "job__parameters": {"inputs": 12, "hidden": [8], "classes": 4},
    "population__source": "synthetic-vectors",
    "population__options": {"samples": 400, "groups": 6},
}
PUMPS: dict[str, Any] = {
    "job__recipe": "anomaly-autoencoder",
    "population__source": "pump",
    "population__devices": 4,
    "population__options": {"windows": 12},
    "population__partition": {"kind": "natural"},
}


@pytest.mark.parametrize("changes", [DIGITS, VECTORS, PUMPS], ids=["digits", "vectors", "pumps"])
@pytest.mark.parametrize("test_share", [0.0, 0.25])
def test_the_recipe_makes_the_simulated_examples_of_them(changes: dict[str, Any], test_share: float) -> None:
    made = scenario(**changes, population__test_share=test_share)
    recipe = find_recipe(made.job.recipe)
    parameters = recipe.check(made.job.parameters)
    simulated = population(made).at(1)
    raw = raw_population(made, recipe, Path())

    assert len(raw.phases) == 1
    assert raw.spec == recipe.input_spec(parameters)
    for device, stored in enumerate(raw.at(1)):
        raw.spec.check(stored.samples)
        labels = [None] * len(stored) if stored.labels is None else stored.labels.tolist()
        mine = recipe.training_set(stored.samples, labels, raw.profile, parameters, False)
        x, y = simulated.of(device)
        np.testing.assert_array_equal(mine.x, x)
        if y is None:
            assert mine.y is None
        else:
            np.testing.assert_array_equal(mine.y, y)


def test_labels_renamed_over_rounds_are_the_simulated_ones() -> None:
    drift = {"from_round": 3, "over_rounds": 4, "rotate_labels": True, "devices": 0.6}
    made = scenario(population__drift=drift, job__rounds=9)
    raw, simulated = (
        raw_population(made, find_recipe("digits-cnn"), Path()),
        population(made),
    )

    for round in range(1, 10):
        for device, stored in enumerate(raw.at(round)):
            np.testing.assert_array_equal(stored.labels, simulated.at(round).of(device)[1])


def test_a_shift_of_plain_vectors_is_the_simulated_one() -> None:
    drift = {"from_round": 2, "shift": 1.5, "feature_scale": 0.2, "feature_shift": 0.3}
    made = scenario(**VECTORS, population__drift=drift)
    recipe = find_recipe("mlp")
    raw, simulated = raw_population(made, recipe, Path()), population(made)

    for round in (1, 2):
        for device, stored in enumerate(raw.at(round)):
            assert stored.samples.dtype == np.float32
            np.testing.assert_allclose(
                stored.samples.astype(np.float64), simulated.at(round).of(device)[0], rtol=1e-5, atol=1e-6
            )


def test_whole_numbers_stay_whole_and_in_their_range() -> None:
    made = scenario(population__drift={"from_round": 2, "shift": 50.0, "devices": 1.0})
    raw = raw_population(made, find_recipe("digits-cnn"), Path())
    before, after = raw.at(1)[0].samples, raw.at(2)[0].samples

    assert before.dtype == after.dtype == np.uint8
    assert not np.array_equal(before, after)
    assert {0, 255} <= set(np.unique(after).tolist())


def test_devices_store_no_more_than_a_job_may_take() -> None:
    made = scenario(job__training={"max_samples": 20})
    raw = raw_population(made, find_recipe("digits-cnn"), Path())

    assert {len(one) for one in raw.at(1)} == {20}
