"""The population of a scenario: examples read, divided, made into training sets, drifted; devices given their class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import DeviceProfile, read_profile
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.population import drift
from hedgerow.simulations.population.devices import draw_classes
from hedgerow.simulations.population.partition.deal import deal
from hedgerow.simulations.population.partition.values import Division
from hedgerow.simulations.population.pool import Ints, Pool, Request
from hedgerow.simulations.population.prepare import flat_data, held_out_set, part_off
from hedgerow.simulations.population.sources.catalogue import SOURCES, options_of, source_of
from hedgerow.simulations.population.values import FlatData, Floats, Phase, Population
from hedgerow.simulations.scenario.spec import Scenario

ALL = ("all",)


class Divided(NamedTuple):
    """A source before anything is made of it: each device's examples to train on and to test with, rising indices."""

    request: Request
    pool: Pool
    train: list[Ints]
    test: list[Ints]


def build_population(scenario: Scenario, recipe: Recipe, base: Path) -> Population:
    """Return all devices with their examples, the same for the same scenario. ``base`` is where relative paths start.

    Raises ConfigError naming the field for what the data do not allow, ContentError for files that are damaged,
    UnsupportedError where a package is missing.
    """
    request, pool, parts, tests = divide(scenario, recipe, base)
    spec, seed = scenario.population, scenario.seed
    private = scenario.job.privacy.mode == "example"
    newest = scenario.job.training.max_samples
    train = flat_data(pool.examples, [part[-newest:] for part in parts], request, private)
    if spec.test_share and not any(len(part) for part in tests):
        raise request.wrong(
            "test_share",
            f"{spec.test_share:g} of so few examples leaves no device one to test with; give devices more, or leave it out",
        )
    test = flat_data(pool.examples, tests, request, private) if spec.test_share else None
    held = pool.held_out
    group, names = _groups(scenario, pool, parts)
    spread = drift.spread_of(train)
    phases = _phases(scenario, request, train, spread)
    tested = () if test is None else _phases(scenario, request, test, spread)
    return Population(
        phases=phases,
        held_out=recipe.public_set(request.parameters) if held is None else held_out_set(held, request),
        device_test=tested[0].data if tested else None,
        device_class=draw_classes(scenario.device_class, spec.devices, seed),
        group=group,
        group_names=names,
        device_test_phases=tested,
    )


def divide(scenario: Scenario, recipe: Recipe, base: Path) -> Divided:
    """Return a source's raw examples and whose they are, as indices. Raises as ``build_population``."""
    request = make_request(scenario, recipe, base)
    pool = source_of(scenario.population.source).read(request)
    request = replace(request, profile=pool.profile or request.profile)
    parts = _parts(scenario, request, pool)
    train, test = part_off(parts, scenario.population.test_share, scenario.seed, pool.ordered)
    return Divided(request, pool, train, test)


def make_request(scenario: Scenario, recipe: Recipe, base: Path) -> Request:
    """Return what the scenario's source is asked. Raises ConfigError naming the field."""
    where, spec = f"scenario {scenario.name}", scenario.population
    path = None if spec.path is None else base / spec.path
    if SOURCES[spec.source].files and path is not None and not path.exists():
        raise ConfigError(
            f"{where}: population.path: {path} does not exist (relative to the scenario's file)"
        )
    return Request(
        recipe=recipe,
        parameters=recipe.check(scenario.job.parameters),
        devices=spec.devices,
        seed=scenario.seed,
        where=where,
        options=options_of(spec, where),
        path=path,
        profile=_profile(scenario, base),
    )


def _profile(scenario: Scenario, base: Path) -> DeviceProfile | None:
    spec = scenario.population
    if spec.profile is not None:
        return read_profile(base / spec.profile)
    if spec.source == "pump":
        return read_profile(configs_folder() / "profiles" / "pump.toml")
    return None


def _parts(scenario: Scenario, request: Request, pool: Pool) -> list[Ints]:
    n = len(pool.examples)
    if n == 0:
        raise ContentError(
            f"{request.where}: population.source: {scenario.population.source!r} gives no example"
        )
    division = Division(
        n=n,
        devices=request.devices,
        labels=pool.examples.labels,
        groups=pool.groups if pool.group_names else None,
        spec=scenario.population.partition,
        where=request.where,
    )
    return deal(division, scenario.seed)


def _groups(scenario: Scenario, pool: Pool, parts: list[Ints]) -> tuple[Ints, tuple[str, ...]]:
    """Return each device's group: that of most of its examples where it has whole groups; one for all otherwise."""
    if scenario.population.partition.kind not in ("group", "natural"):
        return np.zeros(len(parts), np.int64), ALL
    most = [int(np.bincount(pool.groups[part]).argmax()) if len(part) else 0 for part in parts]
    return np.array(most, np.int64), pool.group_names


def _phases(scenario: Scenario, request: Request, data: FlatData, spread: Floats) -> tuple[Phase, ...]:
    spec = scenario.population.drift
    own = drift.differ(data, spec, scenario.seed, spread)
    return drift.phases_of(own, spec, scenario.seed, spread, request.classes)
