"""Which kernel trains, on what, and how many devices at once: given by a record of an earlier run, or found by timing."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, cast, get_args

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import ConfigError, UnsupportedError
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.protocol import Kernel, KernelName
from hedgerow.simulations.scenario.spec import Scenario

MAX_GROUP: Final = 256


class Chosen(NamedTuple):
    """A kernel ready to train, and how many devices it is given at once. The group size shows in the last bits of a model."""

    kernel: Kernel
    group: int
    device: str

    def recorded(self, workers: int) -> dict[str, str]:
        """Return the choice as a run keeps it; ``workers`` is for information, it shows in no result."""
        return {
            "kernel": self.kernel.name,
            "group": str(self.group),
            "device": self.device,
            "workers": str(workers),
        }


def replayed(
    choices: Mapping[str, str], recipe: Recipe, parameters: Parameters, scenario: Scenario
) -> Chosen:
    """Return what ``choices`` name. Raises ConfigError for names or sizes that there are not, UnsupportedError as ``make_kernel``."""
    name, group = choices.get("kernel", ""), choices.get("group", "1")
    if name not in get_args(KernelName):
        raise ConfigError(f"choices: kernel: expected one of {', '.join(get_args(KernelName))}, got {name!r}")
    if not group.isdecimal() or not 1 <= int(group) <= MAX_GROUP:
        raise ConfigError(f"choices: group: expected a number from 1 to {MAX_GROUP}, got {group!r}")
    device = choices.get("device", "cpu")
    kernel = make_kernel(cast("KernelName", name), recipe, parameters, scenario.job.training, device)
    return Chosen(kernel, int(group), device)


def choose(recipe: Recipe, parameters: Parameters, scenario: Scenario) -> Chosen:
    """Return the fastest kernel for this recipe that there is; the reference kernel takes any."""
    kernel = _first(recipe, parameters, scenario, ("explicit", "reference"))
    return Chosen(kernel, group_size(kernel, scenario), "cpu")


def _first(recipe: Recipe, parameters: Parameters, scenario: Scenario, names: Sequence[KernelName]) -> Kernel:
    for name in names[:-1]:
        with suppress(UnsupportedError):
            return make_kernel(name, recipe, parameters, scenario.job.training)
    return make_kernel(names[-1], recipe, parameters, scenario.job.training)


def group_size(kernel: Kernel, scenario: Scenario) -> int:
    """Return how many devices to give ``kernel`` at once: no more than leaves every core of this machine a share."""
    return max(1, min(kernel.group, MAX_GROUP, math.ceil(expected_tasks(scenario) / cores())))


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def expected_tasks(scenario: Scenario) -> int:
    """Return about how many devices train at a time."""
    cohort, devices = scenario.job.cohort, scenario.population.devices
    if cohort.rule == "poisson" and cohort.rate is not None:
        return max(1, math.ceil(cohort.rate * devices))
    return min(devices, cohort.size or devices)
