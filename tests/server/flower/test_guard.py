"""Device A, with a good certificate, tries to be node B on every fleet route, and to hurt the server with bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from google.protobuf.message import Message
from tests.support.raw_device import RawDevice, claim
from tests.support.round_parts import JOB, header, in_thread, instruction, node, update

from hedgerow.edge_agent.trainer.fleet.objects import Handle, pack_reply
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.server.flower import FlowerLink, LinkConfig
from hedgerow.shared import fleetwire
from hedgerow.simulations.bench.bed import Bed


class Attack:
    """Devices ``a`` (bad) and ``b`` (good, active, with an instruction), seen by a running server."""

    def __init__(self, bed: Bed, link: FlowerLink, url: str) -> None:
        self.link = link
        self.a, self.b = (RawDevice(url, bed.identity(name)) for name in ("a", "b"))
        self.keys = {name: NodeSigner(bed.identity(name).key) for name in ("a", "b")}
        self.nodes: dict[str, int] = {}

    async def prepare(self) -> None:
        await self.link.open_job(JOB)
        for name, device in (("a", self.a), ("b", self.b)):
            request = ActivateNodeRequest(public_key=self.keys[name].public_pem, heartbeat_interval=30)
            status, body = await in_thread(device.fleet, "activate-node", request)
            assert status == 200
            self.nodes[name] = ActivateNodeResponse.FromString(body).node_id
        self.message_id = await self.link.send(JOB, "b", instruction())
        job = self.link.job(JOB)
        assert job is not None
        self.run_id = job.run_id


def run(tmp_path: Path, scenario: Callable[[Attack], Any], config: LinkConfig | None = None) -> None:
    async def serve() -> None:
        bed = Bed(tmp_path)
        async with bed.serve(config) as (link, url):
            attack = Attack(bed, link, url)
            await attack.prepare()
            await scenario(attack)

    asyncio.run(serve())


def as_b(attack: Attack) -> dict[str, Message]:
    """Every fleet request, made out for node b."""
    b = Node(node_id=attack.nodes["b"])
    key = attack.keys["b"].public_pem
    return {
        "register-node": RegisterNodeFleetRequest(public_key=key),
        "activate-node": ActivateNodeRequest(public_key=key, heartbeat_interval=30),
        "deactivate-node": DeactivateNodeRequest(node_id=b.node_id),
        "unregister-node": UnregisterNodeFleetRequest(node_id=b.node_id),
        "send-node-heartbeat": SendNodeHeartbeatRequest(node=b, heartbeat_interval=30),
        "pull-messages": PullMessagesRequest(node=b),
        "push-messages": PushMessagesRequest(node=b),
        "get-run": GetRunRequest(node=b, run_id=attack.run_id),
        "get-fab": GetFabRequest(node=b, run_id=attack.run_id, hash_str="0" * 64),
        "push-object": PushObjectRequest(node=b, run_id=attack.run_id, object_id="0" * 64),
        "pull-object": PullObjectRequest(node=b, run_id=attack.run_id, object_id=attack.message_id),
        "confirm-message-received": ConfirmMessageReceivedRequest(
            node=b, run_id=attack.run_id, message_object_id=attack.message_id
        ),
    }


def test_a_cannot_act_as_b_on_any_fleet_route(tmp_path: Path) -> None:
    async def scenario(attack: Attack) -> None:
        for name, request in as_b(attack).items():
            own = await in_thread(attack.a.fleet, name, request)
            assert own[0] in (401, 403), (name, "signed by a's own key", own)

            stolen = await in_thread(
                lambda name=name, request=request: attack.a.fleet(name, request, signer=attack.keys["b"])
            )
            assert stolen[0] in (401, 403), (name, "signed by b's key, over a's connection", stolen)

            headers = {
                **claim(attack.keys["a"], attack.keys["b"].public_pem),
                "content-type": "application/protobuf",
            }
            body = request.SerializeToString()
            forged = await in_thread(attack.a.request, "POST", f"/v1/fleet/{name}", body, headers)
            assert forged[0] == 401, (name, "b's key claimed, a's signature", forged)
        assert attack.link.trainers.has("b")
        status, body = await in_thread(attack.b.fleet, "pull-object", as_b(attack)["pull-object"])
        assert status == 200, "b itself still can"

    run(tmp_path, scenario)


def test_a_cannot_touch_bs_messages_under_its_own_name(tmp_path: Path) -> None:
    async def scenario(attack: Attack) -> None:
        a = Node(node_id=attack.nodes["a"])
        pull = PullObjectRequest(node=a, run_id=attack.run_id, object_id=attack.message_id)
        confirm = ConfirmMessageReceivedRequest(
            node=a, run_id=attack.run_id, message_object_id=attack.message_id
        )
        push = PushObjectRequest(
            node=a, run_id=attack.run_id, object_id=attack.message_id, object_content=b"x"
        )
        for name, request in (
            ("pull-object", pull),
            ("confirm-message-received", confirm),
            ("push-object", push),
        ):
            assert (await in_thread(attack.a.fleet, name, request))[0] == 403, name
        assert attack.message_id in attack.link.state.object_store

    run(tmp_path, scenario)


def test_a_reply_in_bs_name_is_refused_on_either_route(tmp_path: Path) -> None:
    async def scenario(attack: Attack) -> None:
        job = attack.link.job(JOB)
        assert job is not None
        metadata = attack.link.state.message_ins_store[attack.message_id].metadata
        from flwr.common.serde_utils import metadata_to_proto

        handle = Handle(attack.message_id, metadata_to_proto(metadata).SerializeToString())
        payload = update(16)
        parts = pack_reply(attack.nodes["b"], handle, header(instruction(), payload), payload)
        push = PushMessagesRequest.FromString(bytes(parts[1]))
        push.node.node_id = attack.nodes["a"]
        assert (await in_thread(attack.a.fleet, "push-messages", push))[0] == 400

        await in_thread(_activate, attack)
        status, body = await in_thread(_batched, attack, b"".join(bytes(part) for part in parts))
        assert status == 410, body
        assert attack.link.counters["unexpected"] >= 1
        assert await attack.link.next_reply(JOB, 0.05) is None

    def _activate(attack: Attack) -> None:
        member = node(attack.a.url, attack.a.identity)  # type: ignore[arg-type]
        member.activate(30.0)
        attack.who = member._calls._who  # type: ignore[attr-defined]

    def _batched(attack: Attack, body: bytes) -> tuple[int, bytes]:
        headers = {**attack.who, fleetwire.MESSAGE_HEADER: attack.message_id}  # type: ignore[attr-defined]
        return attack.a.request("POST", fleetwire.REPLY_PATH, body, headers)

    run(tmp_path, scenario)


def test_a_stock_node_sees_no_instruction_of_a_packed_job(tmp_path: Path) -> None:
    async def scenario(attack: Attack) -> None:
        request = PullMessagesRequest(node=Node(node_id=attack.nodes["b"]))
        status, body = await in_thread(attack.b.fleet, "pull-messages", request)
        assert status == 200
        assert not PullMessagesResponse.FromString(body).messages_list

    run(tmp_path, scenario)


@pytest.mark.parametrize("body", [b"\xff" * 40, b"\x0a\x05", b"", b"{}"])
def test_garbage_instead_of_protobuf_is_refused_everywhere(tmp_path: Path, body: bytes) -> None:
    async def scenario(attack: Attack) -> None:
        for name in as_b(attack):
            headers = {**attack.keys["a"].headers(), "content-type": "application/protobuf"}
            status, answer = await in_thread(attack.a.request, "POST", f"/v1/fleet/{name}", body, headers)
            assert 400 <= status < 500, (name, status, answer)
        assert attack.link.trainers.has("b")

    run(tmp_path, scenario)
