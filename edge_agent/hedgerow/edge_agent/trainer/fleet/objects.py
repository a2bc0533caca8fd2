"""Flower's objects, as few as a reply needs, built without copying the payload; and an instruction read from them.

A reply is a message, its record dictionary and one config record with header and payload; a payload beyond 64 KiB
becomes an array of 1 MiB chunks instead, so that neither side ever holds it twice. An object is
``KIND CHILDREN LENGTH NUL BODY`` and is named by its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence

import msgspec
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import ConfigRecord, ConfigRecordValue, RecordDict
from google.protobuf.message import DecodeError

from hedgerow.edge_agent.trainer.fleet.connection import Bytes
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError
from hedgerow.shared.job import TrainInstruction, TrainReply

_SERVER_NODE_ID = 1
# Made at import: two threads that meet a Struct for the first time at once crash msgspec while it reads the type.
_INSTRUCTIONS = msgspec.msgpack.Decoder(TrainInstruction)


class Handle(msgspec.Struct, frozen=True):
    """What a reply must refer to."""

    message_id: str
    metadata: bytes


class _Object:
    """One object: its bytes in parts, its name, its children's trees."""

    def __init__(self, kind: str, body: Bytes, children: Sequence[_Object] = ()) -> None:
        n_bytes = memoryview(body).nbytes
        ids = list(dict.fromkeys(child.object_id for child in children))
        head = f"{kind} {','.join(ids)} {n_bytes}".encode() + b"\x00"
        digest = hashlib.sha256(head)
        digest.update(body)
        self.object_id: str = digest.hexdigest()
        self.n_bytes = len(head) + n_bytes
        self.parts: tuple[Bytes, Bytes] = (head, body)
        self.children = {child.object_id: child for child in children}

    def tree(self) -> ObjectTree:
        return ObjectTree(
            object_id=self.object_id, children=[child.tree() for child in self.children.values()]
        )

    def collect(self, into: dict[str, _Object]) -> dict[str, _Object]:
        for child in self.children.values():
            child.collect(into)
        into.setdefault(self.object_id, self)
        return into


def _config(values: dict[str, bytes]) -> _Object:
    items = [
        ConfigRecord.Item(key=key, value=ConfigRecordValue(bytes=value)) for key, value in values.items()
    ]
    return _Object("ConfigRecord", ConfigRecord(items=items).SerializeToString())


def _update(payload: memoryview) -> _Object:
    size = fleetwire.CHUNK_BYTES
    chunks = [_Object("ArrayChunk", payload[start : start + size]) for start in range(0, len(payload), size)]
    ids = list(dict.fromkeys(chunk.object_id for chunk in chunks))
    table = {
        "dtype": "uint8",
        "shape": [len(payload)],
        "stype": fleetwire.PACKED_STYPE,
        "arraychunk_ids": [ids.index(chunk.object_id) for chunk in chunks],
    }
    array = _Object("Array", json.dumps(table).encode(), chunks)
    return _Object("ArrayRecord", json.dumps({fleetwire.UPDATE_ARRAY: array.object_id}).encode(), [array])


def pack_reply(node_id: int, handle: Handle, header: TrainReply, payload: Bytes) -> list[Bytes]:
    """Return a reply as frames' parts, ready to be sent in order; the payload is referred to, not copied."""
    view = memoryview(payload).cast("B")
    encoded = msgspec.msgpack.encode(header)
    if len(view) <= fleetwire.INLINE_PAYLOAD_BYTES:
        record = {fleetwire.HEADER_KEY: encoded, fleetwire.PAYLOAD_KEY: bytes(view)}
        records = {fleetwire.RECORD: _config(record)}
    else:
        records = {
            fleetwire.RECORD: _config({fleetwire.HEADER_KEY: encoded}),
            fleetwire.UPDATE_RECORD: _update(view),
        }
    names = {name: record.object_id for name, record in records.items()}
    content = _Object("RecordDict", json.dumps(names).encode(), list(records.values()))
    metadata = _reply_metadata(node_id, handle)
    message = _Object(
        "Message", ProtoMessage(metadata=metadata).SerializeToString(deterministic=True), [content]
    )
    metadata.message_id = message.object_id
    request = PushMessagesRequest(
        node=Node(node_id=node_id),
        messages_list=[ProtoMessage(metadata=metadata, content=RecordDict())],
        message_object_trees=[message.tree()],
    ).SerializeToString()
    parts: list[Bytes] = [fleetwire.frame_head(len(request)), request]
    for entry in message.collect({}).values():
        parts += [fleetwire.frame_head(entry.n_bytes), *entry.parts]
    return parts


def _reply_metadata(node_id: int, handle: Handle) -> Metadata:
    asked = Metadata.FromString(handle.metadata)
    now = time.time()
    return Metadata(
        run_id=asked.run_id,
        src_node_id=node_id,
        dst_node_id=_SERVER_NODE_ID,
        reply_to_message_id=handle.message_id,
        group_id=asked.group_id,
        created_at=now,
        ttl=max(1.0, asked.created_at + asked.ttl - now),
        message_type=asked.message_type,
    )


def read_instruction(body: bytearray) -> tuple[TrainInstruction, Handle]:
    """Read an instruction from the frames of an answer. Raises ContentError if it is malformed."""
    decoder = fleetwire.FrameDecoder()
    frames = list(decoder.feed(bytes(body)))
    decoder.finish()
    try:
        response = PullMessagesResponse.FromString(frames[0])
        metadata = response.messages_list[0].metadata
        contents = {hashlib.sha256(frame).hexdigest(): frame for frame in frames[1:]}
        if metadata.message_id not in contents:
            raise ContentError("the instruction's message object is missing, or altered")
        for content in contents.values():
            kind, _, record = content.partition(b"\x00")
            if kind.startswith(b"ConfigRecord "):
                values = {item.key: item.value for item in ConfigRecord.FromString(record).items}
                encoded = values[fleetwire.INSTRUCTION_KEY].bytes
                instruction = _INSTRUCTIONS.decode(encoded)
                return instruction, Handle(metadata.message_id, metadata.SerializeToString())
    except (IndexError, KeyError, DecodeError, msgspec.MsgspecError) as error:
        raise ContentError(f"malformed instruction: {error}") from error
    raise ContentError("malformed instruction: no record with an instruction")
