"""Our objects are Flower's, byte for byte, and Flower can inflate them; instructions are read or refused."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde_utils import metadata_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_object_id, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, validate_object_content
from hypothesis import given
from hypothesis import strategies as st
from tests.support.round_parts import header, instruction, update

from hedgerow.edge_agent.trainer.fleet.objects import Handle, pack_reply, read_instruction
from hedgerow.server.flower.messages import address, decode_packed, packed_record
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError

NODE = 77


def asked() -> tuple[Message, Handle]:
    message = address(packed_record(instruction()), run_id=5, node_id=NODE, group="1", ttl_s=60.0)
    return message, Handle(
        message.metadata.message_id, metadata_to_proto(message.metadata).SerializeToString()
    )


def frames_of(payload: bytes) -> tuple[PushMessagesRequest, list[bytes]]:
    parts = pack_reply(NODE, asked()[1], header(instruction(len(payload) // 4), payload), payload)
    head, *contents = fleetwire.FrameDecoder().feed(b"".join(bytes(part) for part in parts))
    return PushMessagesRequest.FromString(head), contents


@pytest.mark.parametrize("n", [0, 16, fleetwire.INLINE_PAYLOAD_BYTES // 4, 20_000, 600_000])
def test_flower_accepts_and_inflates_a_reply_of_any_size(n: int) -> None:
    payload = update(n)
    push, contents = frames_of(payload)
    for content in contents:
        validate_object_content(content)
    by_id = {get_object_id(content): content for content in contents}
    tree_ids = [node.object_id for node in iterate_object_tree(push.message_object_trees[0])]
    assert list(dict.fromkeys(tree_ids)) == list(by_id)

    message = inflate_object_from_contents(push.messages_list[0].metadata.message_id, dict(by_id))

    assert isinstance(message, Message)
    if len(payload) <= fleetwire.CHUNK_BYTES:  # Flower would cut larger arrays into larger chunks
        assert get_object_tree(message) == push.message_object_trees[0]
    if len(payload) > fleetwire.INLINE_PAYLOAD_BYTES:
        assert message.content.array_records["update"]["packed"].data == payload
    decoded = decode_packed(by_id.get, push.messages_list[0].metadata.message_id)
    assert decoded.header == header(instruction(n), payload)
    assert b"".join(decoded.payload) == payload


def test_a_small_reply_is_three_objects_and_a_large_one_a_chunk_a_megabyte() -> None:
    assert len(frames_of(update(16))[1]) == 3
    assert len(frames_of(update(600_000))[1]) == 3 + 2 + 3


def test_equal_chunks_travel_once() -> None:
    push, contents = frames_of(bytes(3 * fleetwire.CHUNK_BYTES))
    assert len(contents) == 3 + 2 + 1
    by_id = {get_object_id(content): content for content in contents}
    decoded = decode_packed(by_id.get, push.messages_list[0].metadata.message_id)
    assert b"".join(decoded.payload) == bytes(3 * fleetwire.CHUNK_BYTES)


def test_a_payload_is_referred_to_not_copied() -> None:
    payload = bytearray(update(600_000))
    parts = pack_reply(NODE, asked()[1], header(instruction(600_000), bytes(payload)), payload)
    views = [part for part in parts if isinstance(part, memoryview)]
    assert sum(len(view) for view in views) == len(payload)
    assert all(view.obj is payload for view in views)


def instruction_body() -> bytes:
    message, _ = asked()
    from flwr.common.serde import message_to_proto
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    head = PullMessagesResponse(
        messages_list=[message_to_proto(message)], message_object_trees=[get_object_tree(message)]
    ).SerializeToString()
    frames = [head, *(entry.deflate() for entry in get_all_nested_objects(message).values())]
    return b"".join(fleetwire.frame_head(len(frame)) + frame for frame in frames)


def test_an_instruction_is_read_from_flowers_objects() -> None:
    got, handle = read_instruction(bytearray(instruction_body()))
    assert got == instruction()
    assert len(handle.message_id) == 64


def test_an_altered_instruction_is_refused() -> None:
    body = bytearray(instruction_body())
    body[-40] ^= 1
    with pytest.raises(ContentError):
        read_instruction(body)


@given(st.binary(max_size=200))
def test_garbage_is_never_an_instruction(body: bytes) -> None:
    with pytest.raises(ContentError):
        read_instruction(bytearray(body))


def test_an_instruction_without_our_record_is_refused() -> None:
    record = RecordDict({"other": ConfigRecord({"k": b"v"})})
    message = address(record, run_id=5, node_id=NODE, group="1", ttl_s=60.0)
    from flwr.common.serde import message_to_proto
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    head = PullMessagesResponse(messages_list=[message_to_proto(message)]).SerializeToString()
    frames = [head, *(entry.deflate() for entry in get_all_nested_objects(message).values())]
    body = b"".join(fleetwire.frame_head(len(frame)) + frame for frame in frames)
    with pytest.raises(ContentError, match="malformed instruction"):
        read_instruction(bytearray(body))
