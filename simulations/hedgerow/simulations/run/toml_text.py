"""Values as TOML, for people to read and to submit: only what differs from the defaults."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_BARE = re.compile(r"^[A-Za-z0-9_-]+\Z")


def changed(value: msgspec.Struct) -> dict[str, Any]:
    """Return a struct's fields that must be given or differ from their defaults, nested structs as tables."""
    table: dict[str, Any] = {}
    for field in msgspec.structs.fields(value):
        here = getattr(value, field.name)
        if isinstance(here, msgspec.Struct):
            inner = changed(here)
            if inner or field.required:
                table[field.encode_name] = inner
        elif here is not None and (field.required or here != _default(field)):
            table[field.encode_name] = msgspec.to_builtins(here)
    return table


def toml_of(table: dict[str, Any], path: str = "") -> str:
    """Return a table as TOML: scalars first, then tables. None is left out: TOML has no such value.

    Raises TypeError for what TOML cannot hold.
    """
    lines = [f"{_key(key)} = {toml_value(value)}" for key, value in table.items() if not _is_table(value)]
    parts = ["\n".join(lines) + "\n"] if lines else []
    for key, value in table.items():
        name = f"{path}{_key(key)}"
        if isinstance(value, dict):
            parts.append(f"[{name}]\n{toml_of(value, f'{name}.')}")
        elif value is not None and _is_table(value):
            parts += [f"[[{name}]]\n{toml_of(one, f'{name}.')}" for one in value]
    return "\n".join(parts)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if callable(field.default_factory) else None


def _is_table(value: Any) -> bool:
    many = isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(one, dict) for one in value)
    return value is None or isinstance(value, dict) or many


def _key(key: str) -> str:
    return key if _BARE.match(key) else _text(key)


def _text(value: str) -> str:
    # A TOML basic string takes JSON's escapes, but no halves of a pair; DEL must be escaped in TOML and is not in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    """Return one value as TOML. Raises TypeError for what TOML cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"TOML has no {type(value).__name__}")
