"""Which kernel trains, on what, and how many devices at once: given by the record of an earlier run, or found by timing."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import torch

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.edge_agent.trainer.plan import StepPlan, schedule
from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.choose import Choice, choose_kernel, read_choice
from hedgerow.simulations.kernel.protocol import Kernel, LocalJob
from hedgerow.simulations.lean.grouping import MAX_BUNDLE
from hedgerow.simulations.lean.trying import Trial, in_words
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.scenario.spec import Scenario

MOST_JOBS: Final = 128
"""As many devices are looked at for a choice, spread over the population."""

LEAST_JOBS: Final = 8

SKIPPED: Final = "skipped"
"""What a record calls the kernels that ended their process."""


class Chosen(NamedTuple):
    """A kernel ready to train, and how many devices it is given at once at most: both show in the last bits of a model."""

    kernel: Kernel
    group: int
    device: str
    skipped: str = ""
    """Kernels that ended their process when they were tried, and by what."""

    def recorded(self, workers: int) -> dict[str, str]:
        """Return the choice as a run keeps it; ``workers`` is for information, it shows in no result."""
        record = {
            "kernel": f"{self.kernel.name}:{self.group}",
            "device": self.device,
            "workers": str(workers),
        }
        return record | ({SKIPPED: self.skipped} if self.skipped else {})


def choose(
    recipe: Recipe,
    parameters: Parameters,
    scenario: Scenario,
    population: Population,
    choices: Mapping[str, str],
    *,
    apart: bool = False,
) -> Chosen:
    """Return what ``choices`` name, or else what is fastest on devices of ``population``, on a GPU if there is one.

    With ``apart`` kernels are tried in a forked process: one that ends it by a signal is skipped and noted. Raises ConfigError
    for choices that there are not, UnsupportedError for some that cannot be had here, EngineError if nothing can be trained.
    """
    training = scenario.job.training
    device = choices.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    given = read_choice(choices["kernel"]) if "kernel" in choices else None
    skipped = choices.get(SKIPPED, "")
    if apart and device == "cpu":
        jobs = sample_jobs(recipe, parameters, scenario, population) if given is None else []
        with Trial(recipe, parameters, training, jobs) as trial:
            choice = _tried(trial, recipe, parameters, training, jobs, given)
            skipped = in_words(trial.skipped) or skipped
    elif given is None:
        jobs = sample_jobs(recipe, parameters, scenario, population)
        choice = choose_kernel(recipe, parameters, training, jobs, device)
    else:
        choice = given
    kernel = choice.make(recipe, parameters, training, device)
    return Chosen(kernel, min(choice.group, MAX_BUNDLE), device, skipped)


def _tried(
    trial: Trial,
    recipe: Recipe,
    parameters: Parameters,
    training: TrainingSpec,
    jobs: list[LocalJob],
    given: Choice | None,
) -> Choice:
    if given is not None:
        if given.name != "reference":  # which proves nothing when it is made
            trial.must_make(given)
        return given
    choice = choose_kernel(recipe, parameters, training, jobs, timed=trial.seconds_a_step)
    if choice.name == "reference":
        trial.must_train(choice)
    return choice


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sample_jobs(
    recipe: Recipe, parameters: Parameters, scenario: Scenario, population: Population
) -> list[LocalJob]:
    """Return what one core is likely to have in a round: a group is never larger, so that no core is left without.

    Small models gain more by company than by a second core: a few devices are kept together whatever the cores.
    """
    job, data = scenario.job, population.at(1)
    model = initial_model(recipe, parameters, job.seed)
    with_data = np.flatnonzero(np.diff(data.offsets))
    expected = expected_tasks(scenario, population.devices)
    share = max(min(expected, LEAST_JOBS), math.ceil(expected / cores()))
    count = min(len(with_data), MOST_JOBS, share)
    jobs = []
    for device in with_data[np.linspace(0, len(with_data) - 1, count).round().astype(int)].tolist():
        x, y = data.of(device)
        newest = slice(-job.training.max_samples, None)
        x, y = x[newest], None if y is None else y[newest]
        one = LocalJob(model, x, y, (job.seed, 1, device), noise_key=(scenario.seed, 1, device))
        jobs.append(one._replace(private=_private(scenario, len(x))))
    return jobs


def expected_tasks(scenario: Scenario, devices: int) -> int:
    """Return about how many devices train at a time."""
    cohort = scenario.job.cohort
    if cohort.rule == "poisson" and cohort.rate is not None:
        return max(1, math.ceil(cohort.rate * devices))
    return min(devices, cohort.size or devices)


def _private(scenario: Scenario, examples: int) -> StepPlan | None:
    """Return steps like those of a device with so many examples; how much noise there is takes no time."""
    privacy = scenario.job.privacy
    if privacy.mode != "example":
        return None
    drawn = schedule(scenario.job.training, examples)
    return StepPlan(drawn.sampling_rate, 1.0, privacy.clip_norm_l2, drawn.steps_per_round)
