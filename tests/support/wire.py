"""Reads what devices sent as one who sits on the wire would: field names of JSON bodies, headers of round replies."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec
from flwr.proto.recorddict_pb2 import ConfigRecord
from tests.support.recording_server import Recorded

from hedgerow.edge_agent.egress import egress_statement
from hedgerow.shared import fleetwire

_PATHS = {
    "JoinRequest": "/v1/device/join",
    "RenewRequest": "/v1/device/renew",
    "Heartbeat": "/v1/device/heartbeat",
    "EventBatch": "/v1/device/events",
    "TrainerExit": "/v1/device/trainer-exit",
}


@cache
def statement_fields() -> dict[str, frozenset[str]]:
    """Return the fields that the egress statement names, by the path they are sent to (or the message's name)."""
    return {
        _PATHS.get(message.message, message.message): frozenset(field.field for field in message.fields)
        for message in egress_statement()
    }


def json_fields(value: Any, known: frozenset[str], path: str = "") -> set[str]:
    """Return the paths of a decoded body's leaves, written as the egress statement writes them.

    A table that the statement names as one field is one field.
    """
    if path in known:
        return {path}
    if isinstance(value, list):
        return set().union(*(json_fields(item, known, f"{path}[]") for item in value))
    if not isinstance(value, dict):
        return set() if value is None else {path}
    tagged = f"{path}<{value.get('type')}>"
    if any(name.startswith(tagged) for name in known):
        path = tagged
    prefix = f"{path}." if path else ""
    return set().union(*(json_fields(item, known, prefix + name) for name, item in value.items()))


def reply_headers(one: Recorded) -> list[dict[str, Any]]:
    """Return the ``TrainReply`` tables in a recorded request, none if it is no reply."""
    if one.path != fleetwire.REPLY_PATH:
        return []
    decoder = fleetwire.FrameDecoder()
    found = []
    for frame in decoder.feed(one.body):
        head, _, body = frame.partition(b"\x00")
        if re.match(rb"ConfigRecord [0-9a-f,]* ?\d+$", head):
            items = {item.key: item.value.bytes for item in ConfigRecord.FromString(body).items}
            found.append(msgspec.msgpack.decode(items[fleetwire.HEADER_KEY]))
    return found
