"""Engines by name, each loaded only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.engine.protocol import Engine
from hedgerow.simulations.run.setting import Setting

EngineMaker = Callable[[str, Setting, int | None, Mapping[str, str] | None, Path | None], Engine]
"""Makes an engine from its name, a setting, workers, recorded choices, and a folder for what devices keep."""


def make_engine(
    name: str,
    setting: Setting,
    workers: int | None,
    choices: Mapping[str, str] | None,
    state_folder: Path | None,
) -> Engine:
    """Return an unopened engine. Raises ConfigError for a name that is none of a loop's."""
    scenario, recipe, population = setting.scenario, setting.recipe, setting.population
    if name == "lean":
        from hedgerow.simulations.lean.engine import LeanEngine

        return LeanEngine(
            scenario, recipe, population, workers=workers, choices=choices, state_folder=state_folder
        )
    if name == "flower":
        from hedgerow.simulations.flower.engine import FlowerEngine

        return FlowerEngine(
            scenario, recipe, population, workers=workers, choices=choices, state_folder=state_folder
        )
    raise ConfigError(f"engine {name!r} trains no tasks; expected lean or flower")
