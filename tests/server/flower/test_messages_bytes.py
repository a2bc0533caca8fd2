"""A reply's objects, as a device may send them: read as they were packed, or refused in words, whatever is changed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from typing import Any

import msgspec
import pytest
from flwr.common.serde_utils import metadata_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.round_parts import header, instruction, update

from hedgerow.edge_agent.trainer.fleet.objects import Handle, pack_reply
from hedgerow.server.flower.intake import check_push
from hedgerow.server.flower.messages import Decoded, address, decode_packed, packed_record
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError
from hedgerow.shared.fleetwire import FrameDecoder
from hedgerow.shared.job import TrainInstruction

NODE = 77


class Sent:
    """One reply as it lies in the object store, with the push that names it."""

    def __init__(self, payload: bytes, **changes: Any) -> None:
        asked = instruction(max(1, len(payload) // 4))
        message = address(packed_record(asked), run_id=3, node_id=NODE, group="1", ttl_s=60)
        handle = Handle(message.metadata.message_id, metadata_to_proto(message.metadata).SerializeToString())
        self.header = msgspec.structs.replace(header(asked, payload), **changes)
        stream = b"".join(bytes(part) for part in pack_reply(NODE, handle, self.header, payload))
        first, *objects = FrameDecoder().feed(stream)
        self.push = PushMessagesRequest.FromString(first)
        self.objects = {hashlib.sha256(content).hexdigest(): content for content in objects}
        self.reply_id = self.push.messages_list[0].metadata.message_id

    def read(self) -> Decoded:
        return decode_packed(self.objects.get, self.reply_id)


@functools.cache
def one_reply() -> Sent:
    return Sent(update(20_000))


def payload_of(decoded: Decoded) -> bytes:
    return b"".join(bytes(view) for view in decoded.payload)


SIZES = [
    0,
    4,
    64,
    fleetwire.INLINE_PAYLOAD_BYTES,
    fleetwire.INLINE_PAYLOAD_BYTES + 4,
    2 * fleetwire.CHUNK_BYTES + 4,
]


@pytest.mark.parametrize("n_bytes", SIZES)
def test_a_reply_comes_back_whole_inline_or_in_chunks(n_bytes: int) -> None:
    payload = update(n_bytes // 4)
    sent = Sent(payload, metrics={"loss": 0.5}, n_samples=9)

    decoded = sent.read()

    assert payload_of(decoded) == payload
    assert (decoded.header, decoded.error) == (sent.header, None)
    assert all(len(content) <= fleetwire.MAX_FRAME_BYTES for content in sent.objects.values())


@pytest.mark.parametrize("n_bytes", [64, 2 * fleetwire.CHUNK_BYTES])
def test_the_push_names_every_object_once_children_first(n_bytes: int) -> None:
    sent = Sent(update(n_bytes // 4))

    ids = check_push(sent.push, NODE)

    assert sorted(ids) == sorted(sent.objects)
    assert ids[-1] == sent.reply_id


@pytest.mark.parametrize("n_bytes", [64, fleetwire.INLINE_PAYLOAD_BYTES + 4])
def test_a_reply_without_any_one_of_its_objects_is_refused(n_bytes: int) -> None:
    sent = Sent(update(n_bytes // 4))
    for missing in sent.objects:
        left = {name: content for name, content in sent.objects.items() if name != missing}
        with pytest.raises(ContentError, match=r"missing|malformed reply"):
            decode_packed(left.get, sent.reply_id)


@settings(max_examples=150)
@given(st.data())
def test_no_change_to_any_object_raises_anything_but_a_content_error(data: st.DataObject) -> None:
    sent = one_reply()  # the same for all examples: its ids hold the time
    name = data.draw(st.sampled_from(sorted(sent.objects)))
    content = bytearray(sent.objects[name])
    at = data.draw(st.integers(0, min(len(content), 400) - 1))
    match data.draw(st.sampled_from(["turn", "cut", "put", "empty"])):
        case "turn":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[at:]
        case "put":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        case _:
            content.clear()
    objects = {**sent.objects, name: bytes(content)}

    with contextlib.suppress(ContentError):
        assert isinstance(decode_packed(objects.get, sent.reply_id), Decoded)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.binary(max_size=60)))
def test_no_store_of_any_bytes_does(objects: dict[str, bytes]) -> None:
    with pytest.raises(ContentError):
        decode_packed(objects.get, "a")


def test_objects_that_lead_in_a_circle_are_refused() -> None:
    sent = Sent(update(4))
    whole = sent.objects[sent.reply_id]

    with pytest.raises(ContentError):
        decode_packed(lambda _: whole, sent.reply_id)


def pushed(sent: Sent, change: str) -> PushMessagesRequest:
    push = PushMessagesRequest()
    push.CopyFrom(sent.push)
    tree = push.message_object_trees[0]
    match change:
        case "no message":
            del push.messages_list[:]
        case "two messages":
            push.messages_list.add().CopyFrom(push.messages_list[0])
        case "no tree":
            del push.message_object_trees[:]
        case "two trees":
            push.message_object_trees.add().CopyFrom(tree)
        case "another tree":
            tree.object_id = "0" * 64
        case "a path":
            tree.children[0].object_id = "../../etc/passwd"
        case "nothing":
            tree.children[0].object_id = ""
        case "too many":
            for n in range(fleetwire.MAX_FRAMES):
                tree.children.add().object_id = hashlib.sha256(str(n).encode()).hexdigest()
    return push


CHANGES = [
    ("no message", "one message"), ("two messages", "one message"), ("no tree", "one message"),
    ("two trees", "one message"), ("another tree", "not the message's own"), ("a path", "names something"),
    ("nothing", "names something"), ("too many", "too large"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_push_that_is_not_one_reply_is_refused(change: str, said: str) -> None:
    with pytest.raises(ContentError, match=said):
        check_push(pushed(Sent(update(4)), change), NODE)


def test_a_push_in_another_node_s_name_is_refused() -> None:
    with pytest.raises(ContentError, match="another node"):
        check_push(Sent(update(4)).push, NODE + 1)


@given(st.integers(1, 2**40), st.integers(1, 2**40), st.binary(max_size=64))
def test_an_instruction_travels_in_a_message_that_is_named_by_its_content(
    run_id: int, node_id: int, model: bytes
) -> None:
    asked = instruction(3, model=model)
    message = address(packed_record(asked), run_id=run_id, node_id=node_id, group="g", ttl_s=5)

    assert (message.metadata.run_id, message.metadata.dst_node_id) == (run_id, node_id)
    assert message.metadata.message_id == message.object_id
    carried: Any = message.content[fleetwire.RECORD][fleetwire.INSTRUCTION_KEY]
    assert msgspec.msgpack.decode(carried, type=TrainInstruction) == asked
