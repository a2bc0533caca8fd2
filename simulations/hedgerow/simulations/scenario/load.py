"""Reading scenarios that people write."""

from __future__ import annotations

from pathlib import Path

from hedgerow.shared.tomlfile import parse_toml, read_toml
from hedgerow.simulations.scenario.check import check_scenario
from hedgerow.simulations.scenario.spec import Scenario


def read_scenario(path: Path) -> Scenario:
    """Return the scenario at ``path``, checked.

    Raises ConfigError naming file and key: unreadable, too large, not TOML, unknown keys (all are listed), values of the
    wrong type or range, and what ``check_scenario`` finds.
    """
    scenario = read_toml(path, Scenario)
    check_scenario(scenario, str(path))
    return scenario


def parse_scenario(data: bytes, where: str) -> Scenario:
    """Return TOML bytes as a checked scenario; ``where`` names the source in errors. Raises as ``read_scenario``."""
    scenario = parse_toml(data, Scenario, where)
    check_scenario(scenario, where)
    return scenario
