"""The gateway from a device's position, over real TLS: what is reachable, by whom, and with how large a body."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.support.raw_device import RawDevice
from tests.support.round_parts import in_thread

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.server.flower import FlowerLink, device_mounts
from hedgerow.server.gateway import Gateway, GatewayConfig, gateway_context, paths
from hedgerow.shared.errors import StorageError, TransportError
from hedgerow.simulations.bench.bed import Bed

FOREIGN_PATHS = [
    "/",
    "/docs",
    "/openapi.json",
    "/health",
    "/metrics",
    "/v1/control/start-run",
    "/v1/control/list-nodes",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/push-object",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/device/../../v1/control/start-run",
    "//v1/control/start-run",
    "/v1//control/start-run",
    "/V1/CONTROL/start-run",
    "/v1/fleet",
    "/v1/device",
]


class Stand:
    """A gateway with routes that say who asked, and count what they read."""

    def __init__(self, bed: Bed, gateway: Gateway) -> None:
        self.bed = bed
        self.url = f"https://127.0.0.1:{gateway.port}"
        self.front = gateway.front
        self.gate = asyncio.Event()

    def device(self, name: str) -> RawDevice:
        return RawDevice(self.url, self.bed.identity(name))

    def nobody(self) -> RawDevice:
        return RawDevice(self.url, ca_file=str(self.bed.authority.folder / "ca.pem"))


async def whoami(request: Request) -> Response:
    body = await request.body()
    return JSONResponse({"device": request.scope["hedgerow.device"], "read": len(body)})


def run(tmp_path: Path, scenario: Callable[[Stand], Any], config: GatewayConfig | None = None) -> None:
    async def serve() -> None:
        bed = Bed(tmp_path)
        gate = asyncio.Event()

        async def held(request: Request) -> Response:
            await gate.wait()
            return JSONResponse({})

        routes = [
            Route("/v1/device/ca", whoami, methods=["GET"]),
            Route("/v1/device/join", whoami, methods=["POST"]),
            Route("/v1/device/echo", whoami, methods=["GET", "POST"]),
            Route("/v1/device/held", held),
        ]
        link = FlowerLink()
        pair = bed.authority.server_pair()
        context = gateway_context(pair.certificate, pair.key, bed.authority.folder / "ca.pem")
        gateway = Gateway(
            config or GatewayConfig(drain_s=1),
            context,
            bed,
            routes=routes,
            mounts=device_mounts(link),
            on_drain=link.drain,
        )
        await gateway.start()
        stand = Stand(bed, gateway)
        stand.gate = gate
        try:
            await scenario(stand)
        finally:
            gate.set()
            await gateway.stop()

    asyncio.run(serve())


@pytest.mark.parametrize("path", FOREIGN_PATHS)
def test_nothing_but_device_and_fleet_routes_exists_for_a_device(tmp_path: Path, path: str) -> None:
    async def scenario(stand: Stand) -> None:
        for method in ("GET", "POST"):
            status, _ = await in_thread(stand.device("a").request, method, path)
            assert status == 404, (method, path)

    run(tmp_path, scenario)


def test_without_a_certificate_only_the_ca_and_joining_are_served(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        nobody = stand.nobody()
        assert (await in_thread(nobody.request, "GET", "/v1/device/ca"))[0] == 200
        assert (await in_thread(nobody.request, "POST", "/v1/device/join", b"{}"))[0] == 200
        for method, path in (
            ("POST", "/v1/device/ca"),
            ("GET", "/v1/device/join"),
            ("GET", "/v1/device/echo"),
            ("GET", "/v1/device/round/next"),
            ("GET", "/v1/device/models/" + "0" * 64),
            ("POST", "/v1/fleet/activate-node"),
            ("POST", "/v1/fleet/pull-messages"),
        ):
            assert (await in_thread(nobody.request, method, path))[0] == 401, (method, path)

    run(tmp_path, scenario)


def test_a_request_carries_the_device_of_its_certificate(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        for name in ("a", "b"):
            status, body = await in_thread(stand.device(name).request, "GET", "/v1/device/echo")
            assert (status, body) == (200, f'{{"device":"{name}","read":0}}'.encode())

    run(tmp_path, scenario)


def test_a_certificate_of_another_ca_ends_the_handshake(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        foreign = Bed(tmp_path / "foreign").identity("a")
        own_ca = stand.bed.identity("a").ca
        mixed = IdentityFiles(foreign.key, foreign.certificate, own_ca, foreign.facts)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await in_thread(RawDevice(stand.url, mixed).request, "GET", "/v1/device/echo")

    run(tmp_path, scenario)


def test_a_revoked_devices_open_connection_is_served_no_more(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        device = stand.device("a")
        assert (await in_thread(lambda: device.request("GET", "/v1/device/echo", keep=True)))[0] == 200
        stand.bed.revoked.add("a")
        status, body = await in_thread(lambda: device.request("GET", "/v1/device/echo", keep=True))
        assert status == 403
        assert b"revoked" in body
        assert device.kept is not None
        device.kept.close()

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/device/echo", 256 * 1024),
        ("/v1/device/models/x", 0),
        ("/v1/fleet/pull-messages", 256 * 1024),
        ("/v1/fleet/push-messages", 1024 * 1024),
        ("/v1/fleet/push-object", 8 * 1024 * 1024),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_its_routes_bound_is_refused(
    tmp_path: Path, path: str, limit: int, declared: bool
) -> None:
    async def scenario(stand: Stand) -> None:
        body = bytes(limit + 1)
        if declared:
            headers = {"content-type": "application/protobuf", "content-length": str(limit + 1)}
            body = b""
        else:
            headers = {
                "content-type": "application/protobuf",
                "content-length": "",
                "transfer-encoding": "chunked",
            }
            body = f"{limit + 1:x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        try:
            status, answer = await in_thread(stand.device("a").request, "POST", path, body, headers)
        except ConnectionError:
            assert not declared, "cut off while it was still sending"
            return
        assert status == 413 or (path.startswith("/v1/device/models") and status in (401, 404, 410)), answer

    run(tmp_path, scenario)


def test_a_body_within_the_bound_is_read_whole(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        status, body = await in_thread(
            stand.device("a").request, "POST", "/v1/device/echo", bytes(256 * 1024)
        )
        assert (status, body) == (200, b'{"device":"a","read":262144}')

    run(tmp_path, scenario)


def test_a_body_that_stalls_is_cut(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        connected = await in_thread(stand.device("a").connect)
        connected.sendall(b"POST /v1/device/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        answer = await in_thread(connected.recv, 4096)
        assert b" 408 " in answer
        connected.close()

    run(tmp_path, scenario, GatewayConfig(drain_s=1, body_timeout_s=0.2))


def test_one_device_cannot_take_all_the_places(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        held = [
            asyncio.create_task(in_thread(stand.device("a").request, "GET", "/v1/device/held"))
            for _ in range(3)
        ]
        async with asyncio.timeout(60):
            while stand.front._running["a"] < 3:
                await asyncio.sleep(0.01)
        assert (await in_thread(stand.device("a").request, "GET", "/v1/device/echo"))[0] == 429
        assert (await in_thread(stand.device("b").request, "GET", "/v1/device/echo"))[0] == 200
        stand.gate.set()
        assert [status for status, _ in await asyncio.gather(*held)] == [200] * 3
        assert (await in_thread(stand.device("a").request, "GET", "/v1/device/echo"))[0] == 200

    run(tmp_path, scenario, GatewayConfig(drain_s=1, max_requests_per_device=3))


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"G" * 70_000])
def test_what_is_not_http_is_cut_and_others_are_served(tmp_path: Path, garbage: bytes) -> None:
    async def scenario(stand: Stand) -> None:
        def send() -> bytes:
            connected = stand.device("a").connect()
            connected.settimeout(2)
            try:
                connected.sendall(garbage)
                connected.sendall(b"\r\n\r\n")
                return connected.recv(4096)
            except (ConnectionError, TimeoutError, ssl.SSLError):
                return b""
            finally:
                connected.close()

        answer = await in_thread(send)
        assert b" 200 " not in answer
        assert (await in_thread(stand.device("b").request, "GET", "/v1/device/echo"))[0] == 200

    run(tmp_path, scenario)


def test_a_closed_connection_leaves_no_memory_to_the_garbage_collector(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        from asyncio.sslproto import SSLProtocol

        await in_thread(stand.device("a").request, "GET", "/v1/device/echo")
        gc.collect()
        gc.disable()
        try:
            before = {id(found) for found in gc.get_objects() if isinstance(found, SSLProtocol)}
            status, _ = await in_thread(stand.device("a").request, "POST", "/v1/fleet/get-run", b"")
            assert status >= 400
            # When the connection is closed on this side is told to nobody.
            async with asyncio.timeout(30):
                while [f for f in gc.get_objects() if isinstance(f, SSLProtocol) and id(f) not in before]:
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()

    run(tmp_path, scenario)


def test_a_taken_address_and_a_bad_certificate_are_named(tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        port = int(stand.url.rpartition(":")[2])
        pair = stand.bed.authority.server_pair()
        ca = stand.bed.authority.folder / "ca.pem"
        second = Gateway(GatewayConfig(port=port), gateway_context(pair.certificate, pair.key, ca), stand.bed)
        with pytest.raises(TransportError, match=str(port)):
            await second.start()
        with pytest.raises(StorageError, match="certificate"):
            gateway_context(tmp_path / "none.pem", pair.key, ca)
        with pytest.raises(StorageError):
            gateway_context(pair.certificate, stand.bed.identity("a").key, ca)

    run(tmp_path, scenario)


def test_decisions_about_paths_are_as_listed() -> None:
    assert paths.is_open("GET", "/v1/device/ca")
    assert not paths.is_open("GET", "/v1/device/ca/")
    assert not paths.is_allowed("/v1/devices/x")
    assert paths.find([], "/v1/device/x") is None
