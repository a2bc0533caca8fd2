"""Whole populations: what a simulated device holds is what a real one would train on, and nothing public or held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_scenarios import population, scenario

from hedgerow.models.pump import Machine, draw_machine
from hedgerow.models.pump.public import cut
from hedgerow.models.recipe import find_recipe
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.models.recipes.digits import device_split, to_input
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import read_profile
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.population.values import Population

PUMPS: dict[str, Any] = {
    "job__recipe": "anomaly-autoencoder",
    "population__source": "pump",
    "population__devices": 4,
    "population__options": {"windows": 12},
    "population__partition": {"kind": "natural"},
}
IMAGES: dict[str, Any] = {
    "job__recipe": "image-cnn",
    "population__source": "synthetic-images",
    "population__options": {"samples": 300},
}
VECTORS: dict[str, Any] = {
    "job__recipe": "mlp",
    "job__parameters": {"inputs": 12, "hidden": [8], "classes": 4},
    "population__source": "synthetic-vectors",
    "population__options": {"samples": 400, "groups": 6},
}


def rows(data: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in data}


def same(a: Population, b: Population) -> bool:
    return all(
        np.array_equal(x.data.x, y.data.x) and np.array_equal(x.data.offsets, y.data.offsets)
        for x, y in zip(a.phases, b.phases, strict=True)
    ) and np.array_equal(a.device_class, b.device_class)


def test_digits_on_devices_are_the_private_ones_all_of_them_once() -> None:
    found = population(scenario(population__partition={"kind": "dirichlet"}))
    (private,) = device_split(1, 1.0, 0)
    data = found.at(1)
    assert data.y is not None
    held = sorted((x.tobytes(), int(y)) for x, y in zip(data.x, data.y, strict=True))
    wanted = sorted(
        (x.tobytes(), int(y)) for x, y in zip(to_input(private.images), private.labels, strict=True)
    )

    assert held == wanted
    assert np.array_equal(found.held_out.x, DIGITS.public_set({}).x)
    assert not rows(data.x) & rows(found.held_out.x)


@pytest.mark.parametrize(
    ("recipe", "parameters", "shape"),
    [
        ("digits-cnn", {}, (8, 8, 1)),
        ("mlp", {}, (64,)),
        ("image-cnn", {"height": 8, "width": 8, "filters": 2}, (8, 8, 1)),
    ],
)
def test_digits_fit_every_recipe_of_their_size_with_the_same_values(
    recipe: str, parameters: dict[str, Any], shape: tuple[int, ...]
) -> None:
    found = population(scenario(job__recipe=recipe, job__parameters=parameters))
    reference = population(scenario()).at(1)
    data = found.at(1)

    assert data.x.shape == (1437, *shape)
    assert found.held_out.x.shape[1:] == shape
    assert data.y is not None
    assert reference.y is not None
    assert np.array_equal(data.y, reference.y)
    np.testing.assert_allclose(data.x.ravel(), reference.x.ravel(), atol=0.5 / 255)


def test_a_pump_holds_the_windows_that_its_agent_would_cut() -> None:
    made = scenario(**PUMPS, seed=3)
    found = population(made)
    profile = read_profile(configs_folder() / "profiles" / "pump.toml")
    recipe = find_recipe("anomaly-autoencoder")

    for device in range(4):
        seed = (3 * 10_007 + device) % 1_000_000
        rows = Machine(draw_machine(seed), seed).rows(16 * 12)
        windows = cut(rows, 16, 16).astype(np.float32)
        expected = recipe.training_set(windows, [None] * 12, profile, {}, False).x
        np.testing.assert_allclose(found.at(1).of(device)[0], expected, atol=1e-5)
    assert found.at(1).y is None
    assert found.group_names == ("pump-1", "pump-2", "pump-3", "pump-4")
    assert found.group.tolist() == [0, 1, 2, 3]


def test_with_privacy_a_recipe_is_asked_for_private_examples() -> None:
    private = {"mode": "example", "epsilon": 4.0, "delta": 1e-4}
    made = {**PUMPS, "job__parameters": {"scaling": "device"}}

    assert population(scenario(**made)).devices == 4
    with pytest.raises(ConfigError, match=r"device 0: .*scaling = 'device' is not private"):
        population(scenario(**made, job__privacy=private))


def test_the_newest_samples_count_where_a_job_bounds_them() -> None:
    whole = population(scenario(**PUMPS)).at(1)
    bounded = population(scenario(**PUMPS, job__training={"max_samples": 5})).at(1)

    assert np.diff(bounded.offsets).tolist() == [5] * 4
    assert np.array_equal(bounded.of(2)[0], whole.of(2)[0][-5:])


def test_the_same_scenario_gives_the_same_population_and_another_seed_another() -> None:
    for changes in (IMAGES, VECTORS, PUMPS, {}):
        one, again, other = (population(scenario(**changes, seed=seed)) for seed in (5, 5, 6))
        assert same(one, again)
        assert not same(one, other)


def test_the_task_of_synthetic_sources_does_not_depend_on_the_seed() -> None:
    for changes in (IMAGES, VECTORS):
        one, other = (population(scenario(**changes, seed=seed)) for seed in (5, 6))
        assert np.array_equal(one.held_out.x, other.held_out.x)
        assert not rows(one.at(1).x) & rows(one.held_out.x)


def test_a_devices_test_examples_are_its_own_and_never_trained_on() -> None:
    for changes in ({}, VECTORS, PUMPS):
        whole = population(scenario(**changes)).at(1)
        found = population(scenario(**changes, population__test_share=0.25))
        assert found.device_test is not None
        assert np.array_equal(found.device_test.x, found.test_at(7).x)  # type: ignore[union-attr]
        for device in range(found.devices):
            n = whole.count(device)
            assert found.device_test.count(device) == round(n * 0.25)
            train, test = rows(found.at(1).of(device)[0]), rows(found.device_test.of(device)[0])
            assert train | test == rows(whole.of(device)[0])


def test_of_what_is_ordered_the_last_part_is_tested() -> None:
    whole = population(scenario(**PUMPS)).at(1)
    found = population(scenario(**PUMPS, population__test_share=0.25))
    assert found.device_test is not None

    assert np.array_equal(found.at(1).of(1)[0], whole.of(1)[0][:9])
    assert np.array_equal(found.device_test.of(1)[0], whole.of(1)[0][9:])


def test_devices_may_be_empty_where_the_least_is_nothing() -> None:
    spec = {"kind": "dirichlet", "alpha": 0.02, "min_examples": 0}
    found = population(scenario(population__devices=60, population__partition=spec))
    counts = np.diff(found.at(1).offsets)

    assert counts.min() == 0
    assert counts.sum() == 1437


def test_groups_of_the_source_become_cohorts() -> None:
    found = population(scenario(**VECTORS, population__partition={"kind": "group"}, population__devices=12))

    assert found.group_names == tuple(f"group-{n}" for n in range(6))
    assert sorted(set(found.group.tolist())) == list(range(6))
    assert population(scenario(**VECTORS)).group_names == ("all",)


def test_drift_moves_train_and_test_alike() -> None:
    drift = {"from_round": 4, "shift": 1.5, "devices": 1.0, "feature_shift": 0.2}
    found = population(scenario(**VECTORS, population__drift=drift, population__test_share=0.5))
    before, after = found.test_at(3), found.test_at(4)
    assert before is not None
    assert after is not None
    moved_test = (after.x - before.x)[0]
    moved_train = (found.at(4).x - found.at(3).x)[0]

    np.testing.assert_allclose(moved_test, moved_train, atol=1e-6)
    assert np.abs(moved_test).min() > 0
    assert [phase.first_round for phase in found.phases] == [1, 4]


def test_classes_of_devices_come_with_the_population() -> None:
    kinds = [{"name": "a", "share": 3}, {"name": "b", "share": 1}]
    found = population(scenario(population__devices=20, device_class=kinds))

    assert np.bincount(found.device_class).tolist() == [15, 5]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"population__devices": 1500}, r"partition\.min_examples: 1 on each of 1500 .* has 1,?437"),
        ({"job__recipe": "mlp", "job__parameters": {"inputs": 60}}, r"population\.source: .*8 by 8 by 1.*60"),
        (
            {"job__recipe": "image-cnn"},
            r"population\.source: .*set height, width and channels in job\.parameters",
        ),
        (
            {"job__recipe": "mlp", "job__parameters": {"classes": 5}},
            r"population\.source: .*set job\.parameters\.classes",
        ),
        (
            {"job__recipe": "mlp", "population__source": "synthetic-images"},
            r"population\.source: gives images",
        ),
        ({**IMAGES, "population__source": "synthetic-vectors"}, r"population\.source: gives vectors"),
        (
            {**PUMPS, "job__parameters": {"channels": ["a", "b"]}},
            r"population\.source: gives windows of eight",
        ),
        ({**PUMPS, "population__profile": "none.toml"}, r"none\.toml: cannot be read"),
        (
            {"population__source": "npz", "population__path": "none.npz", "job__recipe": "mlp"},
            r"population\.path: .*none\.npz",
        ),
    ],
)
def test_what_data_do_not_allow_is_refused_by_field(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=why):
        population(scenario(**changes), tmp_path)
