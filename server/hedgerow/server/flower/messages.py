"""Instructions as Flower messages, and Flower's objects back as packed replies, without joining a payload."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from google.protobuf.message import DecodeError

from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError
from hedgerow.shared.job import TrainInstruction, TrainReply

GetObject = Callable[[str], bytes | None]
_MAX_JSON_BYTES = 1024 * 1024
_HEADERS = msgspec.msgpack.Decoder(TrainReply)


class Decoded(msgspec.Struct, frozen=True):
    """What a device answered: a header and its payload's buffers in order, or an ``error``."""

    header: TrainReply | None
    payload: Sequence[memoryview]
    error: str | None = None


def packed_record(instruction: TrainInstruction) -> RecordDict:
    """Return the record that carries ``instruction`` to our own trainers."""
    encoded = msgspec.msgpack.encode(instruction)
    return RecordDict({fleetwire.RECORD: ConfigRecord({fleetwire.INSTRUCTION_KEY: encoded})})


def address(record: RecordDict, *, run_id: int, node_id: int, group: str, ttl_s: float) -> Message:
    """Return a train message from the SuperLink to a node, named by its own hash."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id=group,
        created_at=now().timestamp(),
        ttl=ttl_s,
        message_type=MessageType.TRAIN,
    )
    metadata.delivered_at = ""
    message = make_message(metadata, content=record)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def decode_packed(get: GetObject, reply_id: str) -> Decoded:
    """Read a reply of our own trainer. Raises ContentError, saying what is wrong, if it is malformed."""
    try:
        _, children, body = _open(get, reply_id, "Message")
        message = ProtoMessage.FromString(bytes(body))
        if message.HasField("error"):
            return Decoded(None, (), f"the device's app failed: {message.error.reason[:200]}")
        if len(children) != 1:
            raise ContentError("a reply must carry one record dictionary")
        records = _names(get, children[0], "RecordDict")
        return _read_records(get, records)
    except (ValueError, KeyError, TypeError, IndexError, DecodeError, msgspec.MsgspecError) as error:
        raise ContentError(f"malformed reply: {error}") from error


def _read_records(get: GetObject, records: dict[str, str]) -> Decoded:
    content = get(records[fleetwire.RECORD])
    if content is None:
        raise ContentError("the reply's header is missing")
    record = ConfigRecord.inflate(content)
    header = _HEADERS.decode(_bytes(record[fleetwire.HEADER_KEY]))
    payload = [memoryview(_bytes(record[fleetwire.PAYLOAD_KEY]))] if fleetwire.PAYLOAD_KEY in record else []
    if fleetwire.UPDATE_RECORD in records:
        arrays = _names(get, records[fleetwire.UPDATE_RECORD], "ArrayRecord")
        payload += _chunks(get, arrays[fleetwire.UPDATE_ARRAY])
    return Decoded(header, payload)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ContentError(f"expected bytes in the reply's header record, got {type(value).__name__}")
    return value


def _open(get: GetObject, object_id: str, expected: str) -> tuple[str, list[str], memoryview]:
    """Return an object's kind, children and body, the body as a view."""
    content = get(object_id)
    if not content:
        raise ContentError(f"object {object_id[:12]} of the reply is missing")
    kind, children, n_bytes = get_object_head_values_from_object_content(content)
    if kind != expected:
        raise ContentError(f"expected a {expected} in the reply, got {kind}")
    start = content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER)
    body = memoryview(content)[start:]
    if len(body) != n_bytes:
        raise ContentError(f"a {kind} of {len(body)} bytes says it has {n_bytes}")
    return kind, children, body


def _names(get: GetObject, object_id: str, kind: str) -> dict[str, str]:
    """Return the name → object id table that a record dictionary or array record is."""
    table = _json(_open(get, object_id, kind)[2])
    if not all(isinstance(value, str) for value in table.values()):
        raise ContentError(f"a {kind} names something that is no object")
    return table


def _chunks(get: GetObject, object_id: str) -> list[memoryview]:
    _, children, body = _open(get, object_id, "Array")
    order = _json(body)["arraychunk_ids"]
    if not isinstance(order, list) or len(order) > fleetwire.MAX_FRAMES:
        raise ContentError("the update's chunks are not listed, or too many")
    return [_open(get, children[index], "ArrayChunk")[2] for index in order]


def _json(body: memoryview) -> dict[str, Any]:
    if len(body) > _MAX_JSON_BYTES:
        raise ContentError("an object's table is too large")
    table = json.loads(bytes(body))
    if not isinstance(table, dict):
        raise ContentError("an object's table is not a table")
    return table
