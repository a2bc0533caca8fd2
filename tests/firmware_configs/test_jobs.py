"""Every job file loads, its recipe takes its parameters, and it fits the profile it names."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.support.configs import CONFIGS

from hedgerow.models.recipe import find_recipe
from hedgerow.server.jobs.validate import check_job
from hedgerow.server.ledger.accounts import DEFAULT_DEVICE_BUDGET
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import BUILT_MODES, Job
from hedgerow.shared.privacy.central import plan_central
from hedgerow.shared.profile import read_profile
from hedgerow.shared.scoring import Scorer
from hedgerow.shared.tomlfile import read_toml

FILES = sorted((CONFIGS / "jobs").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_job_file_loads_and_its_recipe_takes_it(path: Path) -> None:
    job = read_toml(path, Job)
    recipe = find_recipe(job.recipe)
    parameters = recipe.check(job.parameters)

    assert job.name == path.stem
    assert job.privacy.mode in BUILT_MODES
    if job.population.profile is not None:
        profile = read_profile(CONFIGS / "profiles" / f"{job.population.profile}.toml")
        assert recipe.input_spec(parameters) == profile.window_spec
        assert list(profile.channels) == parameters["channels"]
        rule = recipe.scoring(parameters)
        assert rule is not None
        Scorer(rule, profile)


def test_the_private_job_asks_for_what_the_demo_promises() -> None:
    job = read_toml(CONFIGS / "jobs" / "pump-anomaly.toml", Job)
    profile = read_profile(CONFIGS / "profiles" / "pump.toml")

    assert job.privacy.mode == "example"
    assert job.privacy.epsilon is not None and job.privacy.epsilon <= 8
    assert job.privacy.delta is not None and job.privacy.delta <= 1 / (10 * job.training.max_samples)
    assert profile.window.stride >= profile.window.length, (
        "windows overlap: a row would be in several examples"
    )


def test_the_central_job_passes_the_servers_rules_and_says_for_how_many_devices() -> None:
    job = read_toml(CONFIGS / "jobs" / "pump-anomaly-central.toml", Job)

    check_job(job, "pump-anomaly-central.toml")
    plan = plan_central(job.privacy, job.cohort, 1000, job.rounds)
    assert job.privacy.epsilon is not None and plan.epsilon <= job.privacy.epsilon < DEFAULT_DEVICE_BUDGET
    assert job.privacy.delta is not None and job.privacy.delta <= 1 / (10 * 5000)
    # The comment's other way to ask for the same: noise that leads to about this ε.
    asked = msgspec.structs.replace(job.privacy, epsilon=None, noise_multiplier=1.2)
    assert abs(plan_central(asked, job.cohort, 1000, job.rounds).epsilon - plan.epsilon) < 0.5


def test_a_misspelt_key_is_refused() -> None:
    job = read_toml(CONFIGS / "jobs" / "digits.toml", Job)

    with pytest.raises(ConfigError, match="filters"):
        find_recipe(job.recipe).check({**msgspec.to_builtins(job.parameters), "filterz": 1})
