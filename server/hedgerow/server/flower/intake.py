"""Takes one batched reply in: a Flower message, then its objects, each stored as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import is_valid_sha256_hash, iterate_object_tree
from google.protobuf.message import DecodeError

from hedgerow.server.flower.jobs import OpenJob, Outstanding
from hedgerow.server.flower.link import FlowerLink
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError


def check_push(request: PushMessagesRequest, node_id: int) -> list[str]:
    """Return the distinct object ids of a reply, children first. Raises ContentError if it is not one of this node.

    Flower checks neither that the message comes from the node that pushes it, nor that its tree is its own.
    """
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise ContentError("expected one message with one object tree")
    metadata, tree = request.messages_list[0].metadata, request.message_object_trees[0]
    if metadata.src_node_id != node_id:
        raise ContentError("the message names another node as its sender")
    if tree.object_id != metadata.message_id:
        raise ContentError("the object tree is not the message's own")
    ids: dict[str, None] = {}
    for count, node in enumerate(iterate_object_tree(tree)):
        if count >= fleetwire.MAX_FRAMES or not is_valid_sha256_hash(node.object_id):
            raise ContentError("the object tree is too large, or names something that is no object")
        ids[node.object_id] = None
    return list(ids)


class Intake:
    """One upload; ``take`` reads it to its end and leaves the reply complete in the link state."""

    def __init__(self, link: FlowerLink, job: OpenJob, entry: Outstanding, n_bytes: int) -> None:
        self._link = link
        self._job = job
        self._entry = entry
        self._n_bytes = n_bytes
        self._ids: Iterator[str] = iter(())
        self._missing: set[str] = set()
        self._session_id = ""

    async def take(self, body: AsyncIterator[bytes]) -> None:
        """Read the body. Raises ContentError if it is malformed, longer than declared, or incomplete."""
        frames = fleetwire.FrameDecoder()
        total, first = 0, True
        async for chunk in body:
            total += len(chunk)
            if total > self._n_bytes:
                raise ContentError("the body is longer than declared")
            for frame in frames.feed(chunk):
                if first:
                    self._begin(frame)
                    first = False
                else:
                    self._store(frame)
        frames.finish()
        self._entry.received_bytes = self._n_bytes
        if first or self._missing:
            raise ContentError(f"the reply ends with {len(self._missing)} of its objects missing")

    def _begin(self, frame: bytes) -> None:
        request = PushMessagesRequest()
        try:
            request.ParseFromString(frame)
        except DecodeError as error:
            raise ContentError("the reply does not start with a Flower message") from error
        ids = check_push(request, self._entry.node_id)
        proto = request.messages_list[0]
        if (
            proto.metadata.run_id != self._job.run_id
            or proto.metadata.reply_to_message_id != self._entry.message_id
        ):
            raise ContentError("the reply is for another instruction")
        try:
            message = message_from_proto(proto)
        except (ValueError, TypeError, KeyError) as error:
            raise ContentError(f"the reply's message is malformed: {error}") from error
        state = self._link.state
        self._session_id = state.start_session(self._job.run_id)
        self._entry.received_bytes = self._n_bytes
        stored, missing = state.store_message_and_object_tree(
            message, request.message_object_trees[0], self._session_id
        )
        if not stored:
            raise ContentError(
                "Flower's link state refused the reply: answered already, expired, or inconsistent"
            )
        self._ids, self._missing = iter(ids), set(missing)

    def _store(self, content: bytes) -> None:
        object_id = next(self._ids, None)
        if object_id is None:
            raise ContentError("more objects than the reply's tree names")
        if object_id not in self._missing:
            return
        if not self._link.state.store_object(self._job.run_id, self._session_id, object_id, content):
            raise ContentError(f"object {object_id[:12]} was refused: its content does not match its name")
        self._missing.discard(object_id)
