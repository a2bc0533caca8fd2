"""Pydantic models of the views, derived from them field by field, because FastAPI's OpenAPI takes no Structs."""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model


@cache
def pydantic_of(struct: type[msgspec.Struct]) -> type[BaseModel]:
    """Return a frozen pydantic model with the fields, types and docstring of a Struct, nested ones included."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        default = ... if field.required else field.default
        fields[field.encode_name] = (_translate(field.type), default)
    # A view's field may be called model_version, which pydantic would reserve.
    config = ConfigDict(frozen=True, protected_namespaces=())
    return create_model(struct.__name__, __config__=config, __doc__=struct.__doc__, **fields)


def _translate(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return pydantic_of(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _translate(arguments[0])
    if origin is None or not arguments:
        return kind
    inner = tuple(argument if argument is ... else _translate(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return Union[inner]  # noqa: UP007  # a union made at run time
    if origin in (tuple, list, dict):
        return origin[inner]
    return kind


def one(view: type[msgspec.Struct]) -> Any:
    """Return the response model of one view."""
    return pydantic_of(view)


def many(view: type[msgspec.Struct]) -> Any:
    """Return the response model of a list of views."""
    return list[pydantic_of(view)]  # type: ignore[misc]  # a model made at run time


class JobSubmission(BaseModel):
    """A job as its TOML text."""

    toml: str = Field(max_length=256 * 1024, description="the job file's text")


class Submitted(BaseModel):
    """The id under which a job was accepted."""

    job_id: str


class TokenRequest(BaseModel):
    """What a join token is for."""

    groups: tuple[str, ...] = Field((), max_length=16)
    ttl_s: float = Field(900, gt=0, le=7 * 86_400)


class JoinToken(BaseModel):
    """A one-use join token, shown this once."""

    token: str


class Cohort(BaseModel):
    """Who was drawn into a round. For admins: the sampling claim does not hold against who reads this."""

    devices: tuple[str, ...]


class Problem(BaseModel):
    """What was wrong and what to do."""

    detail: str
