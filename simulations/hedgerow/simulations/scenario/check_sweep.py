"""A sweep's fields: each path names a value of the scenario, and each value fits there."""

from __future__ import annotations

from typing import Any

import msgspec

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.scenario.spec import Scenario

_FIXED = ("job.rounds", "name", "job.name", "engine")


def check_sweep(scenario: Scenario, where: str) -> None:
    """Raise ConfigError naming the field for paths that do not exist, values that do not fit, or rounds too many."""
    sweep = scenario.sweep
    if sweep is None:
        return
    if not sweep.fields:
        raise ConfigError(
            f'{where}: sweep.fields: expected at least one, such as "job.training.learning_rate"'
        )
    if sweep.first_rounds > scenario.job.rounds:
        raise ConfigError(
            f"{where}: sweep.first_rounds: expected at most job.rounds ({scenario.job.rounds}), got {sweep.first_rounds}"
        )
    for path, values in sweep.fields.items():
        if not values:
            raise ConfigError(f"{where}: sweep.fields.{path}: expected at least one value")
        if path in _FIXED or path.split(".", 1)[0] == "sweep":
            raise ConfigError(f"{where}: sweep.fields.{path}: cannot be swept over; choose another field")
        for value in values:
            with_value(scenario, path, value, where)


def with_value(scenario: Scenario, path: str, value: Any, where: str) -> Scenario:
    """Return ``scenario`` with the field at a dotted ``path`` set.

    Tables (``job.parameters``, ``population.options``, ``job.strategy.options``) take any last key; what it may be is
    checked with the scenario it gives. Raises ConfigError for a path that does not exist or a value of the wrong type.
    """
    field = f"{where}: sweep.fields.{path}"
    try:
        made: Scenario = _set(scenario, path.split("."), value)
    except KeyError as error:
        raise ConfigError(f"{field}: there is no such field: {error.args[0]}") from error
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"{field}: {value!r} does not fit: {error}") from error
    return made


def _set(holder: Any, keys: list[str], value: Any) -> Any:
    key, rest = keys[0], keys[1:]
    if isinstance(holder, dict):
        return {**holder, key: _set(holder[key], rest, value) if rest else value}
    if isinstance(holder, tuple | list):
        places = {str(n) for n in range(len(holder))}
        if key not in places:
            raise KeyError(f"expected a number below {len(holder)}, got {key!r}")
        return type(holder)(
            (_set(item, rest, value) if rest else value) if str(n) == key else item
            for n, item in enumerate(holder)
        )
    if not isinstance(holder, msgspec.Struct):
        raise KeyError(f"{key!r} lies below a plain value")
    fields = {field.encode_name: field for field in msgspec.structs.fields(holder)}
    if key not in fields:
        raise KeyError(f"{key!r} is none of {', '.join(sorted(fields))}")
    found = fields[key]
    inner = getattr(holder, found.name)
    made = _set(inner, rest, value) if rest else msgspec.convert(value, found.type)
    return msgspec.structs.replace(holder, **{found.name: made})
