"""The choice among kernels: timed on the run's own devices, or taken from a record."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.simulation_lean import DIGITS, digits_population, flat, make_scenario, tiny_population
from tests.support.tiny_recipe import RECIPE as TINY

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import CohortSpec, PrivacySpec
from hedgerow.simulations.kernel.choose import choose_kernel
from hedgerow.simulations.lean.choosing import choose, expected_tasks, sample_jobs
from hedgerow.simulations.population.values import Phase
from hedgerow.simulations.scenario.spec import Scenario


def cohort(scenario: Scenario, **fields: Any) -> Scenario:
    job = msgspec.structs.replace(scenario.job, cohort=CohortSpec(**fields))
    return msgspec.structs.replace(scenario, job=job)


def test_cohort_says_how_many_train_at_a_time() -> None:
    scenario = make_scenario("tiny", 40)
    assert expected_tasks(scenario, 40) == 40
    assert expected_tasks(cohort(scenario, rule="fixed", size=7), 40) == 7
    assert expected_tasks(cohort(scenario, rule="fixed", size=70), 40) == 40
    assert expected_tasks(cohort(scenario, rule="poisson", rate=0.01), 1000) == 10
    assert expected_tasks(cohort(scenario, rule="poisson", rate=0.01), 3) == 1


@pytest.mark.parametrize(
    ("size", "expected"), [(20, [5, 9, 1, 3, 40, 2, 7, 4, 8, 6]), (6, [5, 1, 40, 2, 4, 6]), (10, 8)]
)
def test_sample_is_a_cores_share_of_devices_with_examples(
    monkeypatch: pytest.MonkeyPatch, size: int, expected: list[int] | int
) -> None:
    monkeypatch.setattr("hedgerow.simulations.lean.choosing.cores", lambda: 2)
    population = digits_population([5, 0, 9, 1, 3, 40, 0, 2, 7, 4, 8, 6, *[0] * 10])
    scenario = cohort(make_scenario("digits-cnn", 22), rule="fixed", size=size)
    jobs = sample_jobs(DIGITS, DIGITS.check({}), scenario, population)
    sizes = [len(job.x) for job in jobs]
    assert (len(sizes) if isinstance(expected, int) else sizes) == expected
    np.testing.assert_array_equal(jobs[0].model, initial_model(DIGITS, DIGITS.check({}), 7))
    assert all(job.private is None for job in jobs)


def test_sample_trains_privately_where_the_job_does() -> None:
    scenario = make_scenario("digits-cnn", 2, privacy=PrivacySpec("example", 2.0, 1e-5, 0.7))
    jobs = sample_jobs(DIGITS, DIGITS.check({}), scenario, digits_population([16, 16]))
    plan = jobs[0].private
    assert plan is not None
    assert (plan.sampling_rate, plan.steps, plan.clip_norm_l2) == (0.25, 4, 0.7)


def test_choice_is_recorded_so_that_it_can_be_taken_again() -> None:
    scenario, population = make_scenario("digits-cnn", 3), digits_population([4, 4, 4])
    chosen = choose(DIGITS, DIGITS.check({}), scenario, population, {})
    record = chosen.recorded(5)
    assert record["workers"] == "5"
    again = choose(DIGITS, DIGITS.check({}), scenario, population, record)
    assert (again.kernel.name, again.group, again.device) == (chosen.kernel.name, chosen.group, chosen.device)


def test_a_recipe_that_no_fast_kernel_knows_gets_the_reference() -> None:
    scenario, population = make_scenario("tiny", 2), tiny_population([2, 2])
    parameters = TINY.check({"layer": "norm"})
    assert choose(TINY, parameters, scenario, population, {}).kernel.name == "reference"


def test_a_population_without_examples_is_no_reason_to_fail() -> None:
    scenario, population = make_scenario("digits-cnn", 2), digits_population([0, 0])
    assert choose(DIGITS, DIGITS.check({}), scenario, population, {}).group >= 1


@pytest.mark.parametrize("kernel", ["", "explicit", "explicit:0", "other:1", "explicit:one"])
def test_a_record_that_names_no_kernel_is_refused(kernel: str) -> None:
    scenario, population = make_scenario("digits-cnn", 1), digits_population([2])
    with pytest.raises(ConfigError, match="is no choice"):
        choose(DIGITS, DIGITS.check({}), scenario, population, {"kernel": kernel})


@pytest.mark.parametrize("size", [5, 10])
def test_a_few_small_models_are_tried_together_too(size: int) -> None:
    scenario = cohort(make_scenario("mlp", 10), rule="fixed", size=size)
    recipe = find_recipe("mlp")
    digits = digits_population([30] * 10)
    data = digits.phases[0].data  # the same digits as vectors
    flattened = flat([30] * 10, data.x.reshape(300, 64), data.y)
    population = dataclasses.replace(digits, phases=(Phase(1, flattened),))
    parameters = recipe.check({})
    jobs = sample_jobs(recipe, parameters, scenario, population)
    timings = choose_kernel(recipe, parameters, scenario.job.training, jobs, seconds=0.01).timings
    assert any(name.startswith("stacked:") for name in timings)
