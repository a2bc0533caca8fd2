"""The egress statement: every field that may leave a device, generated from the types that are sent.

What is not in it does not leave: the agent has no other way to send than these messages.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

import msgspec

from hedgerow.shared.job import TrainReply
from hedgerow.shared.messages import EventBatch, Heartbeat, JoinRequest, RenewRequest, TrainerExit

_SENT: Final[tuple[tuple[type[msgspec.Struct], str, str], ...]] = (
    (JoinRequest, "once, when joining", "no telemetry in it"),
    (RenewRequest, "about every twenty days", "no telemetry in it"),
    (Heartbeat, "about every ten seconds", "derived from telemetry only by counting; outside ε"),
    (EventBatch, "when something happens", "alarms are derived from telemetry; outside ε"),
    (TrainerExit, "when a trainer dies", "no telemetry in it"),
    (
        TrainReply,
        "once per round of a job, with the packed model update beside it",
        "mode 'example': the update is covered by the job's ε, counts and metrics are withheld, and the ε stated follows "
        "from the rounded number of examples and the jobs' plans; central modes: the update is clipped and carries no noise, "
        "the server adds it, nothing else is sent; without privacy: as they are",
    ),
)


class EgressField(msgspec.Struct, frozen=True):
    """One field that may leave: the message, the path of the field in it (``[]`` is each item, ``<alarm>`` one kind), its type and bound."""

    message: str
    field: str
    type: str


class EgressMessage(msgspec.Struct, frozen=True):
    """One kind of message that may leave: what it is, when it goes, how it stands to telemetry and privacy."""

    message: str
    about: str
    when: str
    privacy: str
    fields: tuple[EgressField, ...]


def egress_statement() -> tuple[EgressMessage, ...]:
    """Return every message and field that may leave a device."""
    return tuple(
        EgressMessage(
            kind.__name__,
            (inspect.getdoc(kind) or "").split("\n")[0],
            when,
            privacy,
            tuple(EgressField(kind.__name__, path, text) for path, text in _fields(kind, "")),
        )
        for kind, when, privacy in _SENT
    )


def egress_markdown() -> str:
    """Return the statement as a document."""
    lines = [
        "# What may leave a device",
        "",
        "Telemetry never leaves a device. What may leave is this closed set, generated from the code that sends it.",
        "Beside it, requests for the desired state, for models and for signed metadata name what is asked for,",
        "and every connection shows the device's certificate.",
    ]
    for message in egress_statement():
        lines += ["", f"## {message.message}", "", message.about, ""]
        lines += [f"Sent {message.when}. Privacy: {message.privacy}.", "", "| field | type |", "|---|---|"]
        lines += [f"| `{field.field}` | {field.type} |" for field in message.fields]
    return "\n".join(lines) + "\n"


def _fields(kind: type[msgspec.Struct], path: str) -> Iterator[tuple[str, str]]:
    info = msgspec.inspect.type_info(kind)
    if not isinstance(info, msgspec.inspect.StructType):
        raise TypeError(f"{kind.__name__} is no struct")
    if info.tag is not None:
        yield f"{path}{info.tag_field}", f"`{info.tag}`"
    for field in info.fields:
        yield from _inside(field.type, f"{path}{field.encode_name}")


def _inside(kind: msgspec.inspect.Type, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(kind, msgspec.inspect.StructType):
        yield from _fields(kind.cls, f"{path}.")
    elif isinstance(kind, msgspec.inspect.UnionType):
        inner = [part for part in kind.types if not isinstance(part, msgspec.inspect.NoneType)]
        if any(isinstance(part, msgspec.inspect.StructType) for part in inner):
            for part in inner:
                tag = part.tag if isinstance(part, msgspec.inspect.StructType) else None
                yield from _inside(part, path if tag is None else f"{path}<{tag}>")
        else:
            yield path, " or ".join(_text(part) for part in inner) + ", or nothing"
    elif isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        yield from _inside(kind.item_type, f"{path}[]")
    else:
        yield path, _text(kind)


def _text(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, msgspec.inspect.StrType):
        return f"text, at most {kind.max_length} characters" if kind.max_length else "text"
    if isinstance(kind, msgspec.inspect.DictType):
        return "table of text to number"
    names = {
        msgspec.inspect.IntType: "whole number",
        msgspec.inspect.FloatType: "number",
        msgspec.inspect.BoolType: "yes or no",
    }
    return names.get(type(kind), type(kind).__name__)
