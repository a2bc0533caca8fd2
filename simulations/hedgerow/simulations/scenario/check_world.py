"""Population, devices, faults and rounds of a scenario against each other and against the recipe."""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.models.recipe import Recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.population.devices import needed_mib
from hedgerow.simulations.population.sources.catalogue import SOURCES, options_of
from hedgerow.simulations.scenario.spec import FaultsSpec, Scenario

_FLEET_ONLY = ("leave", "kill", "server_kill", "loss", "delay_ms", "clock_skew_s")


def check_population(scenario: Scenario, recipe: Recipe, where: str) -> None:
    """Raise ConfigError for a source or a partition that cannot be what the recipe needs."""
    spec, part = scenario.population, scenario.population.partition
    entry, labelled = SOURCES[spec.source], recipe.task == "classification"
    options = options_of(spec, where)
    if entry.files and not spec.path:
        raise ConfigError(f"{where}: population.path: expected a path, source {spec.source!r} reads files")
    if not entry.files and spec.path:
        raise ConfigError(f"{where}: population.path: source {spec.source!r} reads no files; leave it out")
    if spec.source == "pump" and labelled:
        raise ConfigError(
            f"{where}: population.source: 'pump' has no classes; recipe {recipe.name!r} needs some"
        )
    if entry.grouped is False and part.kind in ("group", "natural"):
        raise ConfigError(
            f"{where}: population.partition.kind: {part.kind!r} needs groups, source {spec.source!r} has none; use 'iid', "
            "'dirichlet', 'label' or 'quantity'"
        )
    if not labelled and part.kind in ("dirichlet", "label"):
        raise ConfigError(
            f"{where}: population.partition.kind: {part.kind!r} divides by label; recipe {recipe.name!r} has no classes: "
            "use 'natural', 'iid' or 'quantity'"
        )
    classes = len(recipe.labels(scenario.job.parameters))
    if part.kind == "label" and not 1 <= part.labels_per_device <= classes:
        raise ConfigError(
            f"{where}: population.partition.labels_per_device: expected at most the recipe's {classes} classes, got "
            f"{part.labels_per_device}"
        )
    if part.max_examples is not None and part.max_examples < part.min_examples:
        raise ConfigError(
            f"{where}: population.partition.max_examples: expected at least min_examples ({part.min_examples}), got "
            f"{part.max_examples}"
        )
    samples = getattr(options, "samples", None)
    if samples is not None and samples < spec.devices * part.min_examples:
        raise ConfigError(
            f"{where}: population.options.samples: {samples} for {spec.devices} devices with at least "
            f"{part.min_examples} each; expected {spec.devices * part.min_examples} or more"
        )


def check_world(scenario: Scenario, recipe: Recipe, where: str) -> None:
    """Raise ConfigError for devices, availability, faults or an evaluation that cannot be."""
    _check_classes(scenario, recipe, where)
    there, faults, evaluation = scenario.availability, scenario.faults, scenario.evaluation
    if there.kind == "diurnal" and there.low > there.rate:
        raise ConfigError(
            f"{where}: availability.low: expected at most availability.rate ({there.rate:g}), got {there.low:g}"
        )
    if there.kind != "always" and there.rate == 0:
        raise ConfigError(f"{where}: availability.rate: expected above 0, nobody would ever be there")
    if scenario.engine != "fleet":
        stray = [name for name in _FLEET_ONLY if getattr(faults, name) != getattr(FaultsSpec(), name)]
        if stray:
            raise ConfigError(
                f"{where}: faults.{stray[0]}: happens to real processes and sockets; expected engine 'fleet', got "
                f"{scenario.engine!r}"
            )
    if faults.byzantine and faults.byzantine.kind == "label-flip" and recipe.task != "classification":
        raise ConfigError(
            f"{where}: faults.byzantine.kind: 'label-flip' needs classes; recipe {recipe.name!r} has none"
        )
    if (evaluation.per_device or evaluation.cohorts != "none") and not scenario.population.test_share:
        key = "per_device" if evaluation.per_device else "cohorts"
        raise ConfigError(
            f"{where}: evaluation.{key}: needs examples held out on the devices; set population.test_share above 0"
        )
    if scenario.population.drift.rotate_labels and recipe.task != "classification":
        raise ConfigError(
            f"{where}: population.drift.rotate_labels: needs classes; recipe {recipe.name!r} has none"
        )


def check_rounds(scenario: Scenario, where: str) -> None:
    """Raise ConfigError for what would begin after the job's last round, or drift that moves nothing."""
    rounds, drift, byzantine = scenario.job.rounds, scenario.population.drift, scenario.faults.byzantine
    if drift.from_round is None:
        for key in ("shift", "rotate_labels"):
            if getattr(drift, key):
                raise ConfigError(
                    f"{where}: population.drift.from_round: expected a round, drift.{key} is set"
                )
    else:
        if not drift.shift and not drift.rotate_labels:
            raise ConfigError(
                f"{where}: population.drift.shift: expected above 0 (or rotate_labels), from_round is set"
            )
        last = drift.from_round + drift.over_rounds - 1
        key = "from_round" if drift.from_round > rounds else "over_rounds"
        _check_round(f"population.drift.{key}", last, rounds, where)
    if byzantine is not None:
        _check_round("faults.byzantine.from_round", byzantine.from_round, rounds, where)


def _check_round(key: str, reached: int, rounds: int, where: str) -> None:
    if reached > rounds:
        raise ConfigError(f"{where}: {key}: reaches round {reached}; job.rounds is {rounds}")


def _check_classes(scenario: Scenario, recipe: Recipe, where: str) -> None:
    if not scenario.device_class:
        raise ConfigError(f"{where}: device_class: expected at least one, or none at all for the default")
    names = [one.name for one in scenario.device_class]
    twice = _first_twice(names)
    if twice is not None:
        raise ConfigError(f"{where}: device_class[{names.index(twice)}].name: {twice!r} is there twice")
    needed = needed_mib(_parameters_of(scenario, recipe), scenario.job.training)
    if all(one.memory_mib < needed for one in scenario.device_class):
        most = max(range(len(names)), key=lambda n: scenario.device_class[n].memory_mib)
        raise ConfigError(
            f"{where}: device_class[{most}].memory_mib: training this model takes {needed:.3g} MiB, no class has that; "
            "expected at least one that can take part"
        )


def _parameters_of(scenario: Scenario, recipe: Recipe) -> int:
    # Slow to import; without storage the largest model costs nothing.
    import torch

    with torch.device("meta"):
        module = recipe.build(scenario.job.parameters)
    return sum(parameter.numel() for parameter in module.parameters())


def _first_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
