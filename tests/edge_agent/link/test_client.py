"""The client against real TLS servers, good and bad."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.fleet import FleetServer, client_of, heartbeat_of, running_fleet

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.client import DeviceClient, split_url
from hedgerow.edge_agent.link.tls import ClockError, device_context
from hedgerow.edge_agent.link.traffic import Traffic
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ConfigError, ContentError, StorageError, TransportError
from hedgerow.shared.messages import DesiredState, EventAck

Fleet = tuple[FleetServer, list[AgentHome]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), 2) as running:
        yield running


class Listener:
    """A TLS server of the fleet's CA whose answers a test writes by hand; one callable per connection."""

    def __init__(self, authority: CertificateAuthority, *serve: Callable[[ssl.SSLSocket], None]) -> None:
        pair = authority.server_pair()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair.certificate, pair.key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.serve = serve
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        for serve in self.serve:
            raw, _ = self.listener.accept()
            try:
                with self.context.wrap_socket(raw, server_side=True) as connection:
                    serve(connection)
            except OSError:
                continue
        self.listener.close()


def answer(text: bytes) -> Callable[[ssl.SSLSocket], None]:
    def serve(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(text)

    return serve


def keep_silent(released: threading.Event) -> None:
    released.wait(20)


OK = b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"revision":5}'


def test_requests_share_one_connection_and_bytes_are_counted(fleet: Fleet) -> None:
    traffic = Traffic()
    client = DeviceClient(fleet[0].url, device_context(fleet[1][0].identity_files()), traffic)
    assert client.get("/v1/device/desired").decode(DesiredState).revision == 0
    first = client._connection
    handshake = traffic.totals()
    client.post("/v1/device/heartbeat", heartbeat_of("device-0"))

    assert client._connection is first
    up, down = traffic.totals()
    assert handshake[0] > 500 and handshake[1] > 500
    assert 300 < up - handshake[0] < 2000 and 50 < down - handshake[1] < 2000
    client.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (403, b'{"detail": "revoked"}', AuthError, "revoked"),
        (401, b'{"error": "join first"}', AuthError, "join first"),
        (400, b'{"detail": "bad"}', ContentError, "bad"),
        (404, b"not json", ContentError, "404"),
        (413, b'{"detail": 5}', ContentError, "413"),
        (429, b"{}", TransportError, "429"),
        (503, b'{"detail": "full"}', TransportError, "full"),
        (500, b"", TransportError, "500"),
    ],
)
def test_refusals_are_told_apart(
    fleet: Fleet, status: int, body: bytes, error: type[Exception], text: str
) -> None:
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    listener = Listener(fleet[0].authority, answer(head + body))
    with pytest.raises(error, match=text):
        client_of(fleet[1][0], listener.url).get("/x")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_broken_answers_are_transport_errors(fleet: Fleet, text: bytes) -> None:
    listener = Listener(fleet[0].authority, answer(text), answer(text))
    with pytest.raises(TransportError):
        client_of(fleet[1][0], listener.url).get("/x")


def test_endless_answer_is_cut_off(fleet: Fleet) -> None:
    def serve(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    listener = Listener(fleet[0].authority, serve)
    with pytest.raises(ContentError, match=str(limits.MAX_CONTROL_BODY_BYTES)):
        client_of(fleet[1][0], listener.url).get("/x")


def test_connection_that_the_server_closed_meanwhile_is_opened_again(fleet: Fleet) -> None:
    listener = Listener(fleet[0].authority, answer(OK), answer(OK))
    client = client_of(fleet[1][0], listener.url)

    assert client.get("/a").decode(DesiredState).revision == 5
    assert client.get("/b").decode(DesiredState).revision == 5
    client.close()


def test_silent_server_is_given_up(fleet: Fleet) -> None:
    released = threading.Event()
    listener = Listener(fleet[0].authority, lambda _: keep_silent(released))
    with pytest.raises(TransportError, match="no answer in time"):
        client_of(fleet[1][0], listener.url).get("/x", timeout_s=0.2)
    released.set()


def test_interrupt_ends_a_request_that_waits_and_refuses_the_next(fleet: Fleet) -> None:
    released = threading.Event()
    listener = Listener(fleet[0].authority, lambda _: keep_silent(released))
    client = client_of(fleet[1][0], listener.url)
    threading.Timer(0.2, client.interrupt).start()
    began = time.monotonic()
    with pytest.raises(TransportError):
        client.get("/x", timeout_s=60)

    assert time.monotonic() - began < 30
    with pytest.raises(TransportError):
        client.get("/x")
    released.set()


def test_answer_of_another_shape_is_a_content_error(fleet: Fleet) -> None:
    with pytest.raises(ContentError, match="EventAck"):
        client_of(fleet[1][0], fleet[0].url).get("/v1/device/desired").decode(EventAck)


def test_foreign_server_is_recognised(fleet: Fleet, tmp_path: Path) -> None:
    listener = Listener(CertificateAuthority.create(tmp_path), answer(OK))
    with pytest.raises(AuthError, match="not the server of this fleet"):
        client_of(fleet[1][0], listener.url).get("/x")


@pytest.mark.parametrize(("days", "what"), [(500, "not valid yet"), (-500, "no longer valid")])
def test_clock_far_off_gives_a_reason_that_names_it(fleet: Fleet, days: int, what: str) -> None:
    authority = fleet[0].authority
    pair = authority.server_pair(
        now=datetime.now(UTC) + timedelta(days=days), name=f"clock-{abs(days)}-{days > 0}"
    )
    listener = Listener(authority, answer(OK))
    listener.context.load_cert_chain(pair.certificate, pair.key)
    context = device_context(fleet[1][0].identity_files())
    client = DeviceClient(listener.url, context, server_name="localhost")
    with pytest.raises(ClockError, match=f"{what} by this device's clock"):
        client.get("/x")


def test_revoked_device_is_refused(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)):
        client = client_of(home, server.url)
        client.get("/v1/device/desired")
        server.fleet.devices.revoke("device-0", "stolen")
        with pytest.raises(AuthError, match="revoked"):
            client.get("/v1/device/desired")


def test_device_of_another_fleet_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (_, (foreign,)):
        files = foreign.identity_files()
    own_ca = fleet[1][0].identity_files().ca
    client = DeviceClient(
        fleet[0].url, device_context(type(files)(files.key, files.certificate, own_ca, files.facts))
    )
    with pytest.raises((AuthError, TransportError)):
        client.get("/v1/device/desired")


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "ca.pem"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_damaged_identity_names_its_folder(
    tmp_path: Path, fleet: Fleet, name: str, content: bytes | None
) -> None:
    import shutil

    home = AgentHome(tmp_path / "home")
    shutil.copytree(fleet[1][0].path, home.path, symlinks=True)
    (home.identity / name).unlink()
    if content is not None:
        (home.identity / name).write_bytes(content)
    with pytest.raises(StorageError, match=str(home.identities)):
        device_context(home.identity_files())


@pytest.mark.parametrize(
    ("url", "parts"),
    [("https://hub", ("hub", 443)), ("https://hub:8443/", ("hub", 8443)), ("https://[::1]:1", ("::1", 1))],
)
def test_addresses_are_taken_apart(url: str, parts: tuple[str, int]) -> None:
    assert split_url(url) == parts


def test_other_addresses_are_refused() -> None:
    with pytest.raises(ConfigError):
        split_url("http://hub")


def test_the_link_loads_nothing_heavy() -> None:
    heavy = [
        "cryptography",
        "httpx",
        "tuf",
        "zeroconf",
        "typer",
        "rich",
        "torch",
        "flwr",
        "fastapi",
        "onnx",
        "asyncio",
    ]
    program = (
        "import sys\n"
        "import hedgerow.edge_agent.link.link, hedgerow.edge_agent.link.renewal, hedgerow.edge_agent.link.health\n"
        "import hedgerow.edge_agent.egress\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
