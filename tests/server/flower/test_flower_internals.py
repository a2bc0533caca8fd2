"""What the adapter takes for granted of Flower: pinned, so that an upgrade fails here first."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common import constant as common
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore import constant as core
from flwr.supercore.inflatable import inflatable_object
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router

ROUTES = {
    "register-node",
    "activate-node",
    "deactivate-node",
    "unregister-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
}


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_pinned_minor_is_installed() -> None:
    assert importlib.metadata.version("flwr").startswith("1.41.")


def test_the_fleet_router_has_the_routes_we_guard_and_no_others() -> None:
    paths = {getattr(route, "path", "") for route in router.routes}
    assert paths == {f"/v1/fleet/{name}" for name in ROUTES}


def test_constants_keep_their_values() -> None:
    assert common.SUPERLINK_NODE_ID == 1
    assert common.HEARTBEAT_MIN_INTERVAL <= 20 <= common.HEARTBEAT_MAX_INTERVAL
    assert common.TIMESTAMP_HEADER == "flwr-timestamp"
    assert core.FLEET_HTTP_PUBLIC_KEY_HEADER == "flwr-public-key"
    assert core.FLEET_HTTP_SIGNATURE_HEADER == "flwr-signature"
    assert (core.HEAD_BODY_DIVIDER, core.HEAD_VALUE_DIVIDER) == (b"\x00", " ")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (InMemoryLinkState.__init__, ["self", "federation_manager", "object_store"]),
        (InMemoryLinkState.activate_node, ["self", "node_id", "heartbeat_interval"]),
        (InMemoryLinkState.deactivate_node, ["self", "node_id"]),
        (InMemoryLinkState.get_message_ins, ["self", "node_id", "limit", "run_id"]),
        (InMemoryLinkState.store_message_and_object_tree, ["self", "message", "object_tree", "session_id"]),
        (InMemoryLinkState.store_message_ins, ["self", "message"]),
        (InMemoryLinkState._check_stored_messages, ["self", "message_ids", "run_id"]),
        (InMemoryLinkState.store_object, ["self", "run_id", "session_id", "object_id", "object_content"]),
        (InMemoryLinkState.start_session, ["self", "run_id"]),
        (InMemoryLinkState.delete_messages, ["self", "message_ins_ids"]),
        (InMemoryLinkState._cleanup_push_session, ["self", "session_id", "cleanup_messages"]),
        (InMemoryLinkState.claim_task, ["self", "task_id"]),
        (InMemoryLinkState.activate_task, ["self", "task_id"]),
        (InMemoryLinkState.stop_run, ["self", "run_id"]),
        (InMemoryObjectStore.get, ["self", "object_id"]),
        (InMemoryObjectStore.delete, ["self", "object_id"]),
        (InMemoryObjectStore.get_object_tree, ["self", "object_id"]),
        (NodeAuthMiddleware.dispatch, ["self", "request", "call_next"]),
        (remove_content_from_message, ["message"]),
        (inflatable_object.get_object_head_values_from_object_content, ["object_content"]),
    ],
)
def test_internal_functions_keep_their_parameters(function: object, expected: list[str]) -> None:
    assert parameters(function) == expected


def test_the_link_state_has_the_attributes_that_the_adapter_reads() -> None:
    state = InMemoryLinkState(NoOpFederationManager(), InMemoryObjectStore())
    for name in (
        "lock",
        "lock_task_store",
        "message_ins_id_to_message_res_id",
        "message_ins_store",
        "node_public_key_to_node_id",
        "nodes",
        "object_store",
        "owner_to_node_ids",
        "run_ids",
        "task_token_store",
        "task_token_to_task_id",
    ):
        assert hasattr(state, name), name


def test_requests_have_the_fields_that_the_guard_reads() -> None:
    assert {field.name for field in PushMessagesRequest.DESCRIPTOR.fields} >= {
        "node",
        "messages_list",
        "message_object_trees",
    }
    assert "node" in {field.name for field in PullMessagesRequest.DESCRIPTOR.fields}


def test_an_object_is_kind_children_length_and_body_and_is_named_by_its_hash() -> None:
    chunk = ArrayChunk(memoryview(b"abc"))
    assert chunk.deflate() == b"ArrayChunk  3\x00abc"
    assert chunk.object_id == hashlib.sha256(chunk.deflate()).hexdigest()

    array = Array(np.zeros(3, np.float32))
    head, _, body = array.deflate().partition(b"\x00")
    (chunk_id,) = array.children
    assert head == f"Array {chunk_id} {len(body)}".encode()
    assert set(json.loads(body)) == {"dtype", "shape", "stype", "arraychunk_ids"}

    record = ArrayRecord({"a": array})
    assert json.loads(record.deflate().partition(b"\x00")[2]) == {"a": array.object_id}

    config = ConfigRecord({"k": b"v"})
    records = RecordDict({"hedgerow": config})
    assert json.loads(records.deflate().partition(b"\x00")[2]) == {"hedgerow": config.object_id}


def test_a_message_is_named_by_its_hash_whatever_its_id_says() -> None:
    metadata = Metadata(1, "", 1, 2, "", "g", 1.8e9, 60.0, "train")
    message: Message = make_message(metadata, content=RecordDict())
    name = message.object_id
    message.metadata.__dict__["_message_id"] = name
    assert message.object_id == name
