"""The charts of the selection, over many replays at once, against the scorer that a device runs row by row."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tests.support.configs import CONFIGS
from tests.support.skab_rig import LEVELS, SIZES

from hedgerow.models.export.vector import load_vector
from hedgerow.models.recipe import find_recipe
from hedgerow.shared.job import Job
from hedgerow.shared.profile import read_profile
from hedgerow.shared.scoring import Scorer
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.bench.federation import federate
from hedgerow.simulations.bench.selection.charts import Course, alarms, count, fit_charts
from hedgerow.simulations.bench.selection.replays import Family
from hedgerow.simulations.bench.selection.statistics import SEEDS, Planted, planted, statistics

PROFILE = read_profile(CONFIGS / "profiles" / "skab.toml")
ROWS = 16
AMONG = (0, 1, 2, 3, 6, 7)


def job(**parameters: Any) -> Job:
    read = read_toml(CONFIGS / "jobs" / "skab-anomaly.toml", Job)
    recipe = find_recipe(read.recipe)
    values = {**read.parameters, "rows": ROWS, "hidden": 16, "code": 4, **parameters}
    return msgspec.structs.replace(read, rounds=1, parameters=recipe.check(values))


def family(replays: int = 2) -> Family:
    rng = np.random.default_rng(5)
    wander = np.cumsum(rng.standard_normal((replays, 250, 8)), axis=1) * 0.06
    rows = LEVELS + SIZES * (rng.standard_normal((replays, 250, 8)) + wander)
    return Family("rig", rows[:, :130], rows[:, 130:])


@pytest.mark.parametrize(
    "options",
    [
        {"follow_rows": None, "dispersion": False, "memory_rows": 10.0},
        {"follow_rows": None, "spread": "held-out", "dispersion": True},
        {"follow_rows": 30.0, "follow_below": 0.75, "leash": 2.0, "factor": 0.8, "release": 0.5},
        {"follow_rows": 60.0, "dispersion": True, "drift_ratio": 0.05, "release": 0.75, "scaling": "device"},
        {"follow_rows": 60.0, "dispersion": False, "scaling": "device", "centring": "window"},
        {"scaling": "public", "centring": "window", "dispersion": True},
        {
            "follow_rows": 50.0,
            "follow_gate": "each",
            "follow_below": 1.0,
            "wander_rows": 200.0,
            "release": 0.7,
        },
    ],
)
def test_every_alarm_is_the_one_that_the_device_s_scorer_gives(options: dict[str, Any]) -> None:
    asked = job(**options)
    recipe = find_recipe(asked.recipe)
    data = planted(family(), AMONG, faults=4)
    read = asked.parameters

    memory = read["memory_rows"]
    stats = statistics(recipe, asked, data, PROFILE, [memory])[memory]
    names = ("factor", "follow_rows", "follow_below", "follow_gate", "leash", "release")
    course = Course(**{name: read[name] for name in names})
    fitted = fit_charts(stats, read["spread"], read["wander_rows"], read["dispersion"], read["quantile"])
    found = alarms(fitted, [course])[0].reshape(data.rest.shape[:-1])

    wrong = total = 0
    for replay, seed in np.ndindex(2, len(SEEDS)):
        expected = by_the_scorer(asked, data, replay, seed)
        assert expected.any() and not expected.all()
        wrong += int((found[replay, seed] != expected).sum())
        total += expected.size
    # float32 here and float64 there part ways where a score is at the threshold to the last digit
    assert wrong <= 0.002 * total


def by_the_scorer(asked: Job, data: Planted, replay: int, seed: int) -> np.ndarray:
    recipe, fam = find_recipe(asked.recipe), data.family
    rule = recipe.scoring(asked.parameters)
    assert rule is not None
    scorer = Scorer(rule, PROFILE)
    fits = [cut(rows) for rows in fam.fit]
    sets = [recipe.training_set(w, [None] * len(w), PROFILE, asked.parameters, False) for w in fits]
    module = recipe.build(asked.parameters)
    load_vector(module, federate(recipe, msgspec.structs.replace(asked, seed=SEEDS[seed]), sets).model)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(x)).numpy())

    fitted = scorer.fit(fits[replay], predict)
    expected = np.zeros(data.rest.shape[2:-1], bool)
    for drift, fault in np.ndindex(expected.shape[:2]):
        rest = data.rest[replay, seed, drift, fault]
        windows = cut(np.concatenate([fam.fit[replay][-(ROWS - 1) :], rest]))
        scores, _ = scorer.judge_all(windows, predict(scorer.transform(windows, fitted)), fitted)
        expected[drift, fault] = [score.alarm for score in scores]
    return expected


def cut(rows: np.ndarray) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(rows, ROWS, axis=0)
    return np.ascontiguousarray(view.transpose(0, 2, 1))


def test_rates_count_faulty_replays_for_f1_and_faultless_ones_for_false_alarms() -> None:
    data = planted(family(1), AMONG, faults=2)
    shape = data.rest.shape[:-1]
    labels = np.broadcast_to(data.labels[:, :, None], shape)

    right, always, never = count(
        np.stack([labels, np.ones(shape, bool), np.zeros(shape, bool)]).reshape(3, -1, shape[-1]), data
    )

    third = 40 / 120
    assert right.f1 == (1.0, 1.0) and right.far_percent == (0.0, 0.0)
    assert always.f1 == pytest.approx([2 * third / (1 + third)] * 2) and always.far_percent == (100.0, 100.0)
    assert never.f1 == (0.0, 0.0) and never.far_percent == (0.0, 0.0)
