"""The gateway's TLS and life: which handshakes succeed, what is named when its files are wrong, how it ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tracemalloc
from pathlib import Path

import pytest
from tests.support.round_parts import in_thread

from hedgerow.server.gateway import Gateway, GatewayConfig, gateway_context
from hedgerow.shared.errors import StorageError, TransportError
from hedgerow.shared.identity import SERVER_NAME
from hedgerow.simulations.bench.bed import Bed


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def context_of(bed: Bed) -> ssl.SSLContext:
    pair = bed.authority.server_pair()
    return gateway_context(pair.certificate, pair.key, bed.authority.folder / "ca.pem")


def test_certificates_are_asked_for_and_not_required_and_old_tls_is_not_spoken(bed: Bed) -> None:
    context = context_of(bed)

    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("broken", ["certificate", "key", "ca"])
@pytest.mark.parametrize("how", ["missing", "garbage", "empty"])
def test_files_that_cannot_be_used_are_an_error_that_names_the_certificate(
    bed: Bed, broken: str, how: str
) -> None:
    pair = bed.authority.server_pair()
    files = {"certificate": pair.certificate, "key": pair.key, "ca": bed.authority.folder / "ca.pem"}
    if how == "missing":
        files[broken].unlink()
    else:
        files[broken].write_bytes(b"-----BEGIN NONSENSE-----" if how == "garbage" else b"")

    with pytest.raises(StorageError, match="certificate cannot be used") as error:
        gateway_context(files["certificate"], files["key"], files["ca"])

    assert str(files["certificate"]) in str(error.value)


def test_the_key_of_another_certificate_is_an_error(bed: Bed, tmp_path: Path) -> None:
    pair, other = bed.authority.server_pair(), Bed(tmp_path / "other").authority.server_pair()

    with pytest.raises(StorageError, match="certificate cannot be used"):
        gateway_context(pair.certificate, other.key, bed.authority.folder / "ca.pem")


def shake(port: int, context: ssl.SSLContext, name: str = SERVER_NAME) -> str | None:
    """Shake hands and return the version of TLS. Raises ssl.SSLError."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        with context.wrap_socket(raw, server_hostname=name) as secured:
            return secured.version()


def test_a_client_of_older_tls_and_one_that_expects_another_server_are_not_talked_to(bed: Bed) -> None:
    async def scenario() -> None:
        gateway = Gateway(GatewayConfig(drain_s=1), context_of(bed), bed)
        await gateway.start()
        try:
            trusting = ssl.create_default_context(cadata=bed.authority.pem)
            assert await in_thread(shake, gateway.port, trusting) == "TLSv1.3"
            with pytest.raises(ssl.SSLCertVerificationError):
                await in_thread(shake, gateway.port, trusting, "another-server")
            older = ssl.create_default_context(cadata=bed.authority.pem)
            older.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await in_thread(shake, gateway.port, older)
        finally:
            await gateway.stop()

    asyncio.run(scenario())


def test_it_has_a_port_while_it_runs_and_may_be_stopped_twice_and_started_again(bed: Bed) -> None:
    drained = []

    async def scenario() -> None:
        gateway = Gateway(
            GatewayConfig(drain_s=1), context_of(bed), bed, on_drain=lambda: drained.append(True)
        )
        await gateway.stop()
        with pytest.raises(TransportError, match="not running"):
            _ = gateway.port
        for life in (1, 2):
            await gateway.start()
            assert gateway.port > 0
            await gateway.stop()
            await gateway.stop()
            assert len(drained) == life
            with pytest.raises(TransportError, match="not running"):
                _ = gateway.port

    asyncio.run(scenario())


def test_an_address_that_this_machine_does_not_have_is_named(bed: Bed) -> None:
    async def scenario() -> None:
        gateway = Gateway(GatewayConfig(host="192.0.2.1", port=4443), context_of(bed), bed)
        with pytest.raises(TransportError, match=r"192\.0\.2\.1:4443"):
            await gateway.start()

    asyncio.run(scenario())


def held_by_idle(bed: Bed, count: int) -> int:
    """Return the bytes that Python holds for ``count`` devices which are connected and quiet."""

    async def scenario() -> int:
        gateway = Gateway(GatewayConfig(drain_s=1), context_of(bed), bed)
        await gateway.start()
        trusting = ssl.create_default_context(cadata=bed.authority.pem)
        connected: list[ssl.SSLSocket] = []

        def connect() -> None:
            raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
            connected.append(trusting.wrap_socket(raw, server_hostname=SERVER_NAME))

        try:
            await in_thread(connect)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                await in_thread(connect)
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
            for one in connected:
                one.close()
            await gateway.stop()

    return asyncio.run(scenario())


def test_a_quiet_connection_takes_little_memory(bed: Bed) -> None:
    """A device has two of them for as long as it lives; asyncio's own buffers are 256 KiB each."""
    assert held_by_idle(bed, 20) < 20 * 96 * 1024
