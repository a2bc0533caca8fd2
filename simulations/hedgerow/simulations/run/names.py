"""A scenario by whatever name: a value, a file, or one of those that come with the project; and changes to it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import from_table, read_toml
from hedgerow.simulations.scenario.check import check_scenario
from hedgerow.simulations.scenario.spec import Scenario

Override = tuple[str, Any]
SHIPPED = Path(__file__).parents[1] / "scenarios"


class NamedScenario(NamedTuple):
    """A scenario with where it came from: ``where`` for messages, ``base`` for its relative paths."""

    scenario: Scenario
    where: str
    base: Path


def shipped() -> list[Path]:
    """Return the scenarios that come with the project, by name."""
    return sorted(SHIPPED.glob("*.toml"))


def find_scenario(
    given: Scenario | str | Path,
    overrides: Iterable[str | Override] = (),
    engine: str | None = None,
    rounds: int | None = None,
) -> NamedScenario:
    """Return the scenario meant by a value, a path, or the name of a shipped one, with ``overrides`` applied and checked.

    ``engine`` and ``rounds`` stand in for the scenario's; what was to begin after a last round moved forward just does not.

    An override is ``("job.training.learning_rate", 0.1)`` or ``"job.training.learning_rate=0.1"``, its value as in TOML
    (what is no TOML value is a string). Raises ConfigError naming file and key.
    """
    found = _find(given)
    changes = [parse_override(one) if isinstance(one, str) else one for one in overrides]
    if engine is not None:
        changes.append(("engine", engine))
    if changes:
        found = found._replace(scenario=with_overrides(found.scenario, changes, found.where))
    check_scenario(found.scenario, found.where)
    if rounds is not None:
        short = with_overrides(found.scenario, [("job.rounds", rounds)], found.where)
        found = found._replace(scenario=short)
    return found


def parse_override(text: str) -> Override:
    """Return ``PATH=VALUE`` as a pair. Raises ConfigError without ``=``."""
    path, sign, value = text.partition("=")
    if not sign or not path.strip():
        raise ConfigError(f"--set {text}: expected PATH=VALUE, for example job.training.learning_rate=0.1")
    try:
        found = tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
        # No TOML; ValueError is also a number of thousands of digits, RecursionError what is nested as deeply.
        found = value.strip()
    # ``nan`` is a number in TOML and an attack in a scenario; no field takes the number.
    return path.strip(), value.strip() if isinstance(found, float) and not math.isfinite(found) else found


def with_overrides(scenario: Scenario, changes: Sequence[Override], where: str) -> Scenario:
    """Return ``scenario`` with each dotted path set. Raises ConfigError for a path or a value that it cannot have."""
    table = msgspec.json.decode(msgspec.json.encode(scenario))  # lists, where builtins would keep tuples
    for path, value in changes:
        _set(table, path, value, where)
    return from_table(table, Scenario, f"{where} with {', '.join(path for path, _ in changes)} set")


def _find(given: Scenario | str | Path) -> NamedScenario:
    if isinstance(given, Scenario):
        return NamedScenario(given, f"scenario {given.name}", Path.cwd())
    path = Path(given)
    if not path.is_file() and path.suffix != ".toml" and path.name == str(given):
        path = _shipped(path.name)
    return NamedScenario(read_toml(path, Scenario), str(path), path.resolve().parent)


def _shipped(name: str) -> Path:
    found = {path.stem: path for path in shipped()}
    if name not in found:
        raise ConfigError(
            f"{name}: no such file, and no scenario of that name comes with the project; there are {', '.join(found) or 'none'}"
        )
    return found[name]


def _set(table: dict[str, Any], path: str, value: Any, where: str) -> None:
    *folders, last = path.split(".")
    at: Any = table
    for walked, part in enumerate(folders):
        inner = at.get(part) if isinstance(at, dict) else _item(at, part)
        if inner is None and isinstance(at, dict):
            inner = at[part] = {}
        if not isinstance(inner, dict | list):
            raise ConfigError(f"{where}: {path}: {'.'.join(folders[: walked + 1])} holds no keys")
        at = inner
    if isinstance(at, dict):
        at[last] = value
    elif _item(at, last) is not None:
        at[int(last)] = value
    else:
        raise ConfigError(f"{where}: {path}: expected a number below {len(at)} at the end")


def _item(values: Any, part: str) -> Any:
    # Not isdigit: that also takes digits that int does not.
    numbered = (
        dict(zip(map(str, range(len(values))), values, strict=True)) if isinstance(values, list) else {}
    )
    return numbered.get(part)
