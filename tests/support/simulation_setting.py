"""Settings small enough to work out by hand: the tiny recipe, a few examples on each device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tests.support.tiny_recipe import RECIPE, examples

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.population.values import FlatData, Phase, Population
from hedgerow.simulations.run.setting import Setting
from hedgerow.simulations.scenario.spec import Scenario


def tiny_scenario(devices: int = 4, **changes: Any) -> Scenario:
    """Return a scenario of the tiny recipe; ``changes`` are tables, ``job`` merged into the job's."""
    job = {
        "name": "tiny",
        "recipe": "tiny",
        "rounds": 3,
        "seed": 5,
        "privacy": {"mode": "none"},
        "training": {"batch_size": 2, "learning_rate": 0.05},
        **changes.pop("job", {}),
    }
    table = {"name": "tiny", "seed": 7, "job": job, "population": {"devices": devices}, **changes}
    return from_table(table, Scenario, "tiny")


def tiny_population(
    counts: Sequence[int], classes: Sequence[int] | None = None, tests: int = 0
) -> Population:
    """Return devices with so many examples each, and ``tests`` held-out ones each."""
    parts = [examples(n, seed) for seed, n in enumerate(counts)]
    held = [examples(tests, 1000 + d) for d in range(len(counts))]
    return Population(
        phases=(Phase(1, flat(parts)),),
        held_out=RECIPE.public_set({}),
        device_test=flat(held) if tests else None,
        device_class=np.zeros(len(counts), np.int64) if classes is None else np.array(classes, np.int64),
        group=np.array([d % 2 for d in range(len(counts))], np.int64),
        group_names=("even", "odd"),
    )


def flat(parts: Sequence[np.ndarray]) -> FlatData:
    """Return examples one after the other."""
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return FlatData(np.ascontiguousarray(np.concatenate(parts), np.float32), None, offsets)


def tiny_setting(
    scenario: Scenario | None = None,
    counts: Sequence[int] = (3, 5, 2, 4),
    classes: Sequence[int] | None = None,
    tests: int = 0,
) -> Setting:
    """Return a setting over ``counts`` examples a device."""
    scenario = scenario or tiny_scenario(len(counts))
    parameters = RECIPE.check(scenario.job.parameters)
    model = initial_model(RECIPE, parameters, scenario.job.seed)
    return Setting(scenario, RECIPE, tiny_population(counts, classes, tests), model.size)
