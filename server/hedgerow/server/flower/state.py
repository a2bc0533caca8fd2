"""Flower's link state and object store, in memory, that tell when a reply is complete.

Only what an embedded SuperLink needs differs from Flower's own: no federation, no task tokens (there is no runtime API
that could use one), a device's newer activation replaces its older one, and stock nodes see only runs meant for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.date import now
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation import NoOpFederationManager

from hedgerow.server.flower.fab import FabInfo
from hedgerow.shared.errors import ContentError

OnReply = Callable[[str, str], None]


@dataclass
class _Upload:
    instruction_id: str
    reply_id: str
    missing: set[str]


class WatchedLinkState(InMemoryLinkState):
    """In-memory link state; ``on_reply(instruction_id, reply_id)`` is called, from any thread, per complete reply.

    It may be called again for a reply that a device pushes twice.
    """

    def __init__(self, on_reply: OnReply) -> None:
        super().__init__(NoOpFederationManager(), InMemoryObjectStore())
        self._on_reply = on_reply
        self._uploads: dict[str, _Upload] = {}
        self._stock_runs: set[int] = set()
        self._queued: dict[int, dict[str, None]] = {}

    def open_run(self, fab: FabInfo | None) -> int:
        """Create a run that is running at once and stays so until it is closed; with ``fab``, stock nodes see it."""
        if fab is not None:
            self.store_fab(Fab(fab.sha256, fab.content, {}))
        run_id = self.create_run(
            fab.fab_id if fab else None,
            fab.version if fab else None,
            fab.sha256 if fab else None,
            {},
            NOOP_FEDERATION_ID,
            None,
            NOOP_FLWR_AID,
            TaskType.SERVER_APP,
        )
        task_id = self.run_ids[run_id].run.primary_task_id
        if task_id is None or (token := self.claim_task(task_id)) is None:
            raise RuntimeError("Flower's link state did not start the run")
        # Without a token nothing can expire: the run ends when we close it, and no one can act as its task.
        with self.lock_task_store:
            self.task_token_store.pop(task_id)
            self.task_token_to_task_id.pop(token)
        if not self.activate_task(task_id):
            raise RuntimeError("Flower's link state did not activate the run")
        if fab is not None:
            self._stock_runs.add(run_id)
        return run_id

    def close_run(self, run_id: int) -> None:
        """Stop a run and forget its messages, objects and sessions."""
        self.stop_run(run_id)
        self._stock_runs.discard(run_id)

    def add_node(self, public_key_pem: bytes, device: str) -> int:
        """Register a device's key and return its node id. Raises ValueError if the key is already in use."""
        return self.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key_pem, 0, name=device)

    def remove_node(self, node_id: int, public_key_pem: bytes) -> None:
        """Unregister a node, so that its key can be registered anew."""
        with self.lock:
            self.nodes.pop(node_id, None)
            self.node_public_key_to_node_id.pop(public_key_pem, None)
            self.owner_to_node_ids.get(NOOP_FLWR_AID, set()).discard(node_id)

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Activate a node, also one that is still active: its process died, and a new one holds its key."""
        with self.lock:
            self.deactivate_node(node_id)
            return super().activate_node(node_id, heartbeat_interval)

    def get_message_ins(self, node_id: int, limit: int | None, *, run_id: int | None = None) -> list[Message]:
        """Return undelivered messages, the oldest first, and mark them delivered; without ``run_id``, of stock runs only.

        Flower's own looks at every message there is, so that a round of n devices would cost n² looks: 4 s for 1,000.
        """
        found: list[Message] = []
        with self.lock:
            for message_id in list(self._queued.get(node_id, ())):
                self._check_stored_messages({message_id})
                message = self.message_ins_store.get(message_id)
                of_run = message.metadata.run_id if message is not None else None
                if message is None or not (
                    of_run in self._stock_runs if run_id is None else of_run == run_id
                ):
                    continue
                self._unqueue(node_id, message_id)
                message.metadata.delivered_at = now().isoformat()
                found.append(message)
                if len(found) == limit:
                    break
        return found

    def store_message_ins(self, message: Message) -> str | None:
        """Store as Flower does, and queue the message for its node."""
        with self.lock:
            known = message.metadata.message_id in self.message_ins_store
            message_id = super().store_message_ins(message)
            if message_id is not None and not known:
                self._queued.setdefault(message.metadata.dst_node_id, {})[message_id] = None
            return message_id

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """Delete as Flower does, out of the nodes' queues too."""
        with self.lock:
            for message_id in message_ins_ids:
                if (message := self.message_ins_store.get(message_id)) is not None:
                    self._unqueue(message.metadata.dst_node_id, message_id)
            super().delete_messages(message_ins_ids)

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Store as Flower does, and watch what a reply still misses."""
        stored, missing = super().store_message_and_object_tree(message, object_tree, session_id)
        instruction_id = message.metadata.reply_to_message_id
        if stored and instruction_id:
            if missing:
                upload = _Upload(instruction_id, message.metadata.message_id, set(missing))
                with self.lock:
                    self._uploads[session_id] = upload
            else:
                self._on_reply(instruction_id, message.metadata.message_id)
        return stored, missing

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """Store as Flower does, and tell when this was the last object of a reply."""
        if not super().store_object(run_id, session_id, object_id, object_content):
            return False
        with self.lock:
            upload = self._uploads.get(session_id)
            if upload is None:
                return True
            upload.missing.discard(object_id)
            if upload.missing:
                return True
            del self._uploads[session_id]
        self._on_reply(upload.instruction_id, upload.reply_id)
        return True

    def offer(self, message: Message) -> str:
        """Queue an instruction with its objects for its node and return its id. Raises ContentError if refused."""
        message_id = message.metadata.message_id
        with no_object_id_recompute():
            objects = get_all_nested_objects(message)
            tree = get_object_tree(message)
        run_id = message.metadata.run_id
        session_id = self.start_session(run_id)
        stored, missing = self.store_message_and_object_tree(
            remove_content_from_message(message), tree, session_id
        )
        if not stored:
            self.object_store.delete(message_id)
            raise ContentError(
                "Flower's link state refused the instruction: its node or its run is not known"
            )
        for object_id in missing:
            self.store_object(run_id, session_id, object_id, objects[object_id].deflate())
        return message_id

    def upload_of(self, session_id: str) -> str | None:
        """Return the instruction that a push session answers, or None."""
        upload = self._uploads.get(session_id)
        return upload.instruction_id if upload else None

    def is_replied(self, instruction_id: str) -> bool:
        """Whether a reply to the instruction was begun."""
        return instruction_id in self.message_ins_id_to_message_res_id

    def is_complete(self, instruction_id: str) -> bool:
        """Whether a reply to the instruction was begun and misses nothing."""
        begun = self.is_replied(instruction_id)
        return begun and all(up.instruction_id != instruction_id for up in tuple(self._uploads.values()))

    def forget(self, instruction_id: str) -> None:
        """Drop an instruction, its reply (begun or complete) and all of their objects."""
        self.forget_upload(instruction_id)
        reply_id = self.message_ins_id_to_message_res_id.get(instruction_id)
        self.delete_messages({instruction_id})
        if reply_id is not None:
            self.object_store.delete(reply_id)
        self.object_store.delete(instruction_id)

    def forget_upload(self, instruction_id: str) -> None:
        """Drop a reply that broke off, so that the device may send it again."""
        with self.lock:
            sessions = [s for s, upload in self._uploads.items() if upload.instruction_id == instruction_id]
            for session_id in sessions:
                del self._uploads[session_id]
        # Outside our lock: Flower takes its session lock first and the state's lock second when a session expires.
        for session_id in sessions:
            self._cleanup_push_session(session_id, cleanup_messages=True)

    def _unqueue(self, node_id: int, message_id: str) -> None:
        queue = self._queued.get(node_id)
        if queue is not None:
            queue.pop(message_id, None)
            if not queue:
                del self._queued[node_id]
