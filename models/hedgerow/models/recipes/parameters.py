"""Checking a job's ``parameters`` table against what a recipe takes."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec

from hedgerow.shared.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


def checked(table: dict[str, Any], kind: type[T], recipe: str) -> T:
    """Return ``table`` as a ``kind`` with defaults filled in. Raises ConfigError naming recipe and key."""
    known = set(kind.__struct_fields__)  # fields() reads type hints anew, a third of a millisecond each time
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"recipe {recipe}: unknown parameter {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    try:
        found = msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"recipe {recipe}: parameters: {error}") from error
    for name in found.__struct_fields__:
        value = getattr(found, name)
        if isinstance(value, float) and not math.isfinite(
            value
        ):  # JSON, by which parameters travel, has no such number
            raise ConfigError(f"recipe {recipe}: parameters: {name}: expected a finite number, got {value}")
    return found
