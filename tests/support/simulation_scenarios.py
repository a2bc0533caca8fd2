"""Scenarios for tests: small TOML with changes on top, parsed and checked as a user's file is."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.population.build import build_population
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.scenario.check import check_scenario
from hedgerow.simulations.scenario.spec import Scenario

DIGITS = """
name = "small"
[job]
name = "small"
recipe = "digits-cnn"
[job.privacy]
mode = "none"
[population]
devices = 10
source = "digits"
"""


def table(text: str = DIGITS, **changes: Any) -> dict[str, Any]:
    """Return a scenario as a TOML table, with fields set by path: ``job__rounds=3`` is ``job.rounds``."""
    made = tomllib.loads(text)
    for path, value in changes.items():
        *folders, last = path.split("__")
        at = made
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = value
    return made


def scenario(text: str = DIGITS, **changes: Any) -> Scenario:
    """Return a checked scenario. Raises ConfigError as a file would."""
    made = from_table(table(text, **changes), Scenario, "s.toml")
    check_scenario(made, "s.toml")
    return made


def population(made: Scenario, base: Path = Path()) -> Population:
    """Return a scenario's population."""
    return build_population(made, find_recipe(made.job.recipe), base)
