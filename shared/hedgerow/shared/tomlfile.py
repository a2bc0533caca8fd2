"""Reading TOML that people write: bounded, every unknown key listed with its path, every error with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)
_HINTS, _LONGEST = 5, 64
_TOO_DEEP = f"tables or arrays are nested too deeply, more than {limits.MAX_TOML_DEPTH} levels"


def read_toml(path: Path, kind: type[T]) -> T:
    """Return the file at ``path`` as a ``kind``.

    Raises ConfigError if the file is missing, over ``MAX_TOML_BYTES``, not UTF-8, not TOML (with its line),
    has unknown keys (all of them are listed), or a value of the wrong type or range (with its key).
    """
    try:
        with path.open("rb") as file:
            data = file.read(limits.MAX_TOML_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_toml(data, kind, str(path))


def parse_toml(data: bytes, kind: type[T], where: str) -> T:
    """Return TOML bytes as a ``kind``; ``where`` names the source in errors. Raises as ``read_toml``."""
    return from_table(parse_table(data, where), kind, where)


def parse_table(data: bytes, where: str) -> dict[str, Any]:
    """Return TOML bytes as a plain table. Raises ConfigError if they are too many, not UTF-8, or not TOML."""
    if len(data) > limits.MAX_TOML_BYTES:
        raise ConfigError(f"{where}: larger than {limits.MAX_TOML_BYTES} bytes")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: {_TOO_DEEP}") from error
    except (
        ValueError
    ) as error:  # TOMLDecodeError is one; a number of thousands of digits, or no date, raises the plain one
        raise ConfigError(f"{where}: not TOML: {error}") from error
    if _is_deep(table):
        raise ConfigError(f"{where}: {_TOO_DEEP}")
    return table


def _is_deep(table: dict[str, Any]) -> bool:
    """Tell whether values are nested deeper than is read: what comes after walks them by recursion."""
    level: list[Any] = [table]
    for _ in range(limits.MAX_TOML_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)


def from_table(table: dict[str, Any], kind: type[T], where: str) -> T:
    """Return a parsed TOML table as a ``kind``. Raises ConfigError as ``read_toml``."""
    unknown = sorted(_unknown_keys(table, kind, ""))
    if unknown:
        raise ConfigError(_told(unknown, where))
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


class _Unknown(NamedTuple):
    """A key that nobody asked for, the path of its table with a dot behind (empty at the top), and that table's keys."""

    key: str
    table: str
    known: tuple[str, ...]


def _told(unknown: list[_Unknown], where: str) -> str:
    """Return all unknown keys, what the first few may be misspelt from, and the keys of their tables."""
    from difflib import get_close_matches

    few = unknown[:_HINTS]
    close = [
        one.table + found
        for one in few
        for found in get_close_matches(one.key.removeprefix(one.table)[:_LONGEST], one.known, n=1)
    ]
    meant = f"did you mean {', '.join(close)}? " if close else ""
    tables = {one.table: ", ".join(one.known) or "none" for one in few}
    known = "; ".join(
        f"keys of {table[:-1]} are {names}" if table else f"top-level keys are {names}"
        for table, names in tables.items()
    )
    keys = ", ".join(one.key for one in unknown)
    return f"{where}: unknown key{'s' if len(unknown) > 1 else ''} {keys}; {meant}{known}"


def _unknown_keys(value: Any, kind: Any, path: str) -> list[_Unknown]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if not isinstance(value, dict):
            return []
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        found = [_Unknown(f"{path}{key}", path, tuple(sorted(fields))) for key in value if key not in fields]
        for key, inner in value.items():
            if key in fields:
                found += _unknown_keys(inner, fields[key], f"{path}{key}.")
        return found
    return _unknown_inside(value, kind, path)


def _unknown_inside(value: Any, kind: Any, path: str) -> list[_Unknown]:
    origin, arguments = get_origin(kind), get_args(kind)
    if not arguments:
        return []
    if origin is Annotated:
        return _unknown_keys(value, arguments[0], path)
    if origin in (list, tuple) and isinstance(value, list):
        return [
            key
            for n, item in enumerate(value)
            for key in _unknown_keys(item, arguments[0], f"{path[:-1]}[{n}].")
        ]
    if origin is dict and isinstance(value, dict):
        return [
            key for name, item in value.items() for key in _unknown_keys(item, arguments[1], f"{path}{name}.")
        ]
    structs = [a for a in arguments if isinstance(a, type) and issubclass(a, msgspec.Struct)]
    return _unknown_keys(value, structs[0], path) if len(structs) == 1 else []
