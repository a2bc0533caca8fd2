"""A sweep's fields: paths that exist, values that fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.simulation_scenarios import scenario

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.scenario.check_sweep import with_value


def sweep(fields: dict[str, list[Any]], **changes: Any) -> dict[str, Any]:
    return {"sweep": {"fields": fields, **changes}}


@pytest.mark.parametrize(
    "fields",
    [
        {"job.training.learning_rate": [0.1, 1, 0.01]},
        {"job.training.optimizer": ["sgd", "adam"], "job.training.batch_size": [8, 16]},
        {"job.parameters.filters": [4, 8]},
        {"population.partition.alpha": [0.1, 10.0]},
        {"job.strategy.options.server_momentum": [0.9]},
        {"device_class.0.examples_per_s": [10.0, 100.0]},
        {"job.cohort": [{"rule": "fixed", "size": 3}]},
    ],
)
def test_fields_that_exist_are_accepted(fields: dict[str, list[Any]]) -> None:
    assert scenario(**sweep(fields)).sweep is not None


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"job.training.rate": [0.1]}, "no such field: 'rate' is none of"),
        ({"jobs.training.learning_rate": [0.1]}, "no such field: 'jobs'"),
        ({"job.training.learning_rate.more": [0.1]}, "no such field"),
        ({"job.training.learning_rate": [0.1, -1]}, "-1 does not fit"),
        ({"job.training.learning_rate": ["fast"]}, "'fast' does not fit"),
        ({"job.training.optimizer": ["lbfgs"]}, "'lbfgs' does not fit"),
        ({"job.cohort": [{"rule": "some"}]}, "does not fit"),
        ({"device_class.1.jitter": [0.1]}, "no such field: expected a number below 1"),
        ({"device_class.first.jitter": [0.1]}, "no such field"),
        ({"job.training.learning_rate": []}, "at least one value"),
        ({"job.rounds": [3]}, "cannot be swept"),
        ({"sweep.trials": [3]}, "cannot be swept"),
        ({}, "at least one"),
    ],
)
def test_other_fields_and_values_are_refused_by_path(fields: dict[str, list[Any]], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"s\.toml: sweep\.fields.*{re.escape(why)}") as caught:
        scenario(**sweep(fields))

    assert all(path in str(caught.value) for path in fields)


def test_a_rung_has_no_more_rounds_than_the_job() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.first_rounds: .*job\.rounds \(10\)"):
        scenario(**sweep({"job.seed": [1]}, first_rounds=11))


def test_a_value_lands_where_its_path_says_and_nowhere_else() -> None:
    before = scenario()
    after = with_value(before, "job.training.learning_rate", 0.5, "s.toml")

    assert after.job.training.learning_rate == 0.5
    assert before.job.training.learning_rate == 0.01
    assert with_value(after, "job.training.learning_rate", 0.01, "s.toml") == before
    assert with_value(before, "job.parameters.filters", 4, "s.toml").job.parameters == {"filters": 4}
