"""What the proxy lets through: fleet routes of a node, bounded, to loopback names only; and to holders of the key."""

from __future__ import annotations

import asyncio
import ssl
import stat
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.round_parts import in_thread

from hedgerow.edge_agent.flower_proxy import FlowerProxy, rules
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.shared.errors import StorageError, TransportError
from hedgerow.simulations.bench.bed import Bed


@pytest.mark.parametrize(
    ("method", "path", "host", "length", "status"),
    [
        ("POST", "/v1/fleet/pull-messages", "127.0.0.1:9", "10", None),
        ("POST", "/v1/fleet/pull-messages", "localhost", "0", None),
        ("POST", "/v1/fleet/pull-messages", "evil.example:9", "10", HTTPStatus.MISDIRECTED_REQUEST),
        ("POST", "/v1/fleet/pull-messages", None, "10", HTTPStatus.MISDIRECTED_REQUEST),
        ("GET", "/v1/fleet/pull-messages", "localhost:9", "0", HTTPStatus.NOT_FOUND),
        ("POST", "/v1/fleet/register-node", "localhost:9", "0", HTTPStatus.NOT_FOUND),
        ("POST", "/v1/fleet/../control/start-run", "localhost:9", "0", HTTPStatus.NOT_FOUND),
        ("POST", "/v1/device/desired", "localhost:9", "0", HTTPStatus.NOT_FOUND),
        ("POST", "/v1/control/start-run", "localhost:9", "0", HTTPStatus.NOT_FOUND),
        ("POST", "/v1/fleet/push-object", "localhost:9", None, HTTPStatus.LENGTH_REQUIRED),
        ("POST", "/v1/fleet/push-object", "localhost:9", "-1", HTTPStatus.LENGTH_REQUIRED),
        ("POST", "/v1/fleet/push-object", "localhost:9", str(9 << 20), HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ("POST", "/v1/fleet/push-object", "localhost:9", "9" * 40, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ],
)
def test_what_is_forwarded(
    method: str, path: str, host: str | None, length: str | None, status: HTTPStatus | None
) -> None:
    refused = rules.judge(method, path, host, length)
    assert (refused[0] if refused else None) == status


@given(st.text(max_size=40))
def test_no_other_path_is_forwarded(path: str) -> None:
    assert path in rules.FORWARDED_PATHS or rules.judge("POST", path, "localhost", "0") is not None


def test_trainer_headers_of_a_local_client_are_not_forwarded() -> None:
    headers = [("Hedgerow-Job", "x"), ("hedgerow-activation", "y"), ("flwr-signature", "z"), ("Host", "h")]
    assert rules.forwarded(headers) == {"flwr-signature": "z"}


def test_the_device_joins_through_it_and_a_stranger_without_its_key_does_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            proxy = FlowerProxy(url, bed.identity("a"), tmp_path / "proxy")
            proxy.start()
            trust = ssl.create_default_context(cafile=str(tmp_path / "proxy" / "loopback.pem"))
            with httpx.Client(base_url=f"https://{proxy.address}", verify=trust, trust_env=False) as client:

                def activate(signer: NodeSigner) -> int:
                    request = ActivateNodeRequest(public_key=signer.public_pem, heartbeat_interval=30)
                    headers = {**signer.headers(), "content-type": "application/protobuf"}
                    return client.post(
                        "/v1/fleet/activate-node", content=request.SerializeToString(), headers=headers
                    ).status_code

                assert await in_thread(activate, NodeSigner(bed.identity("b").key)) == 403
                assert link.node_of("a") is None
                assert await in_thread(activate, NodeSigner(bed.identity("a").key)) == 200
                assert link.trainers.has("a")
                refused = await in_thread(lambda: client.get("/v1/device/desired"))
                assert refused.status_code == 404
            await in_thread(proxy.stop)

    asyncio.run(scenario())


def test_a_server_out_of_reach_is_a_bad_gateway(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    proxy = FlowerProxy("https://127.0.0.1:1", bed.identity("a"), tmp_path / "proxy")
    proxy.start()
    try:
        trust = ssl.create_default_context(cafile=str(tmp_path / "proxy" / "loopback.pem"))
        with httpx.Client(base_url=f"https://{proxy.address}", verify=trust, trust_env=False) as client:
            assert client.post("/v1/fleet/get-run", content=b"x").status_code == 502
    finally:
        proxy.stop()


def test_its_files_are_the_owners_only(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    proxy = FlowerProxy("https://127.0.0.1:1", bed.identity("a"), tmp_path / "proxy")
    proxy.stop()
    key_file = tmp_path / "proxy" / "node-key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    load_ssh_private_key(key_file.read_bytes(), None)
    assert sorted(path.name for path in (tmp_path / "proxy").iterdir()) == ["loopback.pem", "node-key"]


def test_a_missing_key_and_a_taken_port_are_named(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    first = FlowerProxy("https://127.0.0.1:1", bed.identity("a"), tmp_path / "proxy")
    try:
        with pytest.raises(TransportError, match="cannot listen"):
            port = int(first.address.rpartition(":")[2])
            FlowerProxy("https://127.0.0.1:1", bed.identity("a"), tmp_path / "second", port=port)
        bed.identity("b").key.write_text("nothing")
        with pytest.raises(StorageError, match="node key"):
            FlowerProxy("https://127.0.0.1:1", bed.identity("b"), tmp_path / "third")
    finally:
        first.stop()
