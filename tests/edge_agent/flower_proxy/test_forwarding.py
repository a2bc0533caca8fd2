"""The proxy on real sockets, between a client that behaves well or badly and a server whose answers are scripted."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from hypothesis import given
from hypothesis import strategies as st
from tests.support.scripted_server import Asked, Said, ScriptedServer

from hedgerow.edge_agent.flower_proxy import FlowerProxy, rules
from hedgerow.edge_agent.flower_proxy.keys import loopback_context, write_node_key
from hedgerow.shared.errors import StorageError, TransportError
from hedgerow.simulations.bench.bed import Bed

PULL = "/v1/fleet/pull-messages"


class Rig:
    """A proxy between ``server`` and whoever connects."""

    def __init__(self, folder: Path) -> None:
        self.bed = Bed(folder)
        self.says = Said(body=b"plain")
        self.server = ScriptedServer(self.bed.authority, lambda _asked: self.says)
        self.folder = folder / "proxy"
        self.identity = self.bed.identity("a")
        self.proxy = FlowerProxy(self.server.url, self.identity, self.folder, timeout_s=10)
        self.trust = ssl.create_default_context(cafile=str(self.folder / "loopback.pem"))

    @property
    def port(self) -> int:
        return int(self.proxy.address.rpartition(":")[2])

    def client(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.trust, timeout=20)

    def ask(
        self, body: bytes = b"", path: str = PULL, method: str = "POST", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = self.client()
        given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given_headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data, {name.lower(): value for name, value in answer.getheaders()}

    def raw(self, text: bytes) -> bytes:
        """Return all that comes back until the proxy closes."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            self.trust.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            secured.sendall(text)
            answer = b""
            while chunk := secured.recv(65536):
                answer += chunk
        return answer


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    with rig.server:
        rig.proxy.start()
        yield rig
        rig.proxy.stop()


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    shared_rig.says = Said(body=b"plain")
    shared_rig.server.asked.clear()
    return shared_rig


# What goes through, goes through as it is


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000, rules.MAX_BODY_BYTES])
def test_bodies_of_any_size_arrive_byte_for_byte(rig: Rig, size: int) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    status, data, _ = rig.ask(body[:size], Flwr_Signature="abc", Content_Type="application/protobuf")
    (asked,) = rig.server.asked
    assert (status, data) == (200, b"plain")
    assert asked.body == body[:size]
    assert (asked.method, asked.path) == ("POST", PULL)
    assert asked.headers["flwr-signature"] == "abc"
    assert asked.headers["content-type"] == "application/protobuf"
    assert asked.headers["content-length"] == str(size)


@pytest.mark.parametrize("size", [0, 1, 65_537, 3_000_000])
@pytest.mark.parametrize("chunks", [False, True])
def test_answers_of_any_size_come_back_byte_for_byte(rig: Rig, size: int, chunks: bool) -> None:
    body = bytes(range(253)) * (size // 253 + 1)
    rig.says = Said(207, body[:size], (("x-flower", "yes"), ("connection", "x-flower")), chunks)
    status, data, headers = rig.ask()
    assert (status, data) == (207, body[:size])
    assert headers["content-length"] == str(size)
    assert "transfer-encoding" not in headers
    assert headers["x-flower"] == "yes"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429, 500, 503])
def test_what_the_server_refuses_is_refused_in_its_words(rig: Rig, status: int) -> None:
    rig.says = Said(status, b'{"detail": "because"}')
    assert rig.ask(b"x")[:2] == (status, b'{"detail": "because"}')


def test_one_connection_serves_many_requests_in_order(rig: Rig) -> None:
    connection = rig.client()
    for number in range(20):
        rig.says = Said(body=b"answer %d" % number)
        connection.request("POST", PULL, b"question %d" % number)
        answer = connection.getresponse()
        assert answer.read() == b"answer %d" % number
    connection.close()
    assert [asked.body for asked in rig.server.asked] == [b"question %d" % n for n in range(20)]


def test_what_belongs_to_one_connection_is_not_handed_on(rig: Rig) -> None:
    headers = {
        "Connection": "keep-alive",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Hedgerow-Job": "job",
        "Hedgerow-Activation": "secret",
        "Proxy-Connection": "x",
        "Upgrade": "h2c",
    }
    rig.ask(b"x", **{name.replace("-", "_"): value for name, value in headers.items()})
    (asked,) = rig.server.asked
    dropped = {"keep-alive", "te", "hedgerow-job", "hedgerow-activation", "proxy-connection", "upgrade"}
    assert not dropped & set(asked.headers)
    assert asked.headers["host"] == rig.server.url.removeprefix("https://")


@given(st.lists(st.tuples(st.sampled_from([*sorted(rules._DROPPED), "x-a", "flwr-b"]), st.text(max_size=5))))
def test_no_dropped_header_passes_in_any_case(headers: list[tuple[str, str]]) -> None:
    mixed = [(name.title() if n % 2 else name.upper(), value) for n, (name, value) in enumerate(headers)]
    passed = rules.forwarded(mixed)
    assert set(passed) == {name for name, _ in headers} & {"x-a", "flwr-b"}
    assert all(passed[name] == dict(headers)[name] for name in passed)


# What does not


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_no_foreign_host_is_served(host: str) -> None:
    refused = rules.judge("POST", PULL, host, "0")
    name = host.rpartition(":")[0] or host
    ours = {"127.0.0.1", "localhost", "[::1]"}
    assert (refused is None) == (name in ours or host in ours)


@given(st.text(max_size=15))
def test_a_length_is_digits_and_bounded(length: str) -> None:
    refused = rules.judge("POST", PULL, "localhost", length)
    good = length != "" and all(c in "0123456789" for c in length)
    assert (refused is None) == (good and int(length) <= rules.MAX_BODY_BYTES and len(length) <= 12)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PULL, 404),
        ("POST", "/v1/fleet/pull-messages/", 404),
        ("POST", "/v1/fleet/pull-messages?x=1", 404),
        ("POST", "/v1/device/heartbeat", 404),
        ("POST", "/v1/fleet/pull-messages/../../device/desired", 404),
        ("PUT", PULL, 501),
        ("DELETE", PULL, 501),
    ],
)
def test_nothing_else_reaches_the_server(rig: Rig, method: str, path: str, status: int) -> None:
    assert rig.ask(b"", path, method)[0] == status
    assert rig.server.asked == []


def request(*lines: str, body: bytes = b"", port: int = 0) -> bytes:
    head = "\r\n".join([f"POST {PULL} HTTP/1.1", *lines, "", ""])
    return head.replace("{port}", str(port)).encode() + body


def test_a_page_that_rebinds_a_name_is_refused_without_being_read(rig: Rig) -> None:
    answer = rig.raw(request("Host: evil.example:{port}", "Content-Length: 4", body=b"abcd", port=rig.port))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"loopback names only" in answer
    assert rig.server.asked == []


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("Content-Length: x", 411),
        ("Content-Length: -1", 411),
        ("X-None: 1", 411),
        ("Content-Length: 8388609", 413),
    ],
)
def test_a_body_without_a_good_length_is_refused(rig: Rig, length: str, status: int) -> None:
    answer = rig.raw(request("Host: localhost:{port}", length, port=rig.port))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert "connection: close" in answer.decode().lower()
    assert rig.server.asked == []


def test_a_refused_body_is_not_taken_for_the_next_request(rig: Rig) -> None:
    inner = request("Host: localhost:{port}", "Content-Length: 0", port=rig.port)
    outer = request("Host: evil", f"Content-Length: {len(inner)}", body=inner)
    answer = rig.raw(outer)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert rig.server.asked == []


def test_chunked_bodies_are_not_taken(rig: Rig) -> None:
    body = b"4\r\nabcd\r\n0\r\n\r\n"
    answer = rig.raw(
        request("Host: localhost:{port}", "Transfer-Encoding: chunked", body=body, port=rig.port)
    )
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert rig.server.asked == []


# When things break


def test_a_client_that_leaves_in_the_middle_of_a_body_harms_nobody(rig: Rig) -> None:
    with (
        socket.create_connection(("127.0.0.1", rig.port), timeout=20) as plain,
        rig.trust.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(
            request("Host: localhost:{port}", "Content-Length: 1000", body=b"x" * 10, port=rig.port)
        )
    assert rig.ask(b"next")[:2] == (200, b"plain")
    assert b"next" in [asked.body for asked in rig.server.asked]


def test_an_answer_that_breaks_off_is_not_passed_off_as_whole(rig: Rig) -> None:
    rig.says = Said(200, b"x" * 100_000, cut=70_000)
    connection = rig.client()
    connection.request("POST", PULL, b"x")
    with pytest.raises((http.client.IncompleteRead, http.client.HTTPException, OSError)):
        connection.getresponse().read()
    connection.close()
    rig.says = Said(body=b"again")
    assert rig.ask()[1] == b"again"


def test_somebody_who_shakes_no_hands_holds_up_nobody(rig: Rig) -> None:
    silent = [socket.create_connection(("127.0.0.1", rig.port), timeout=20) for _ in range(10)]
    assert rig.ask(b"x")[0] == 200
    for connection in silent:
        connection.close()


def test_somebody_who_speaks_no_tls_is_cut_off(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port), timeout=20) as plain:
        plain.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * 600)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := plain.recv(4096):
                answer += chunk
    assert b"HTTP" not in answer
    assert rig.ask(b"x")[0] == 200


def test_many_nodes_at_once_get_each_their_own_answer(rig: Rig) -> None:
    failures: list[object] = []

    def one(number: int) -> None:
        body = b"%d" % number * 50_000
        try:
            if rig.ask(body)[:2] != (200, b"plain"):
                failures.append(number)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert {asked.body for asked in rig.server.asked} == {b"%d" % n * 50_000 for n in range(1, 13)}


def test_the_server_must_be_the_fleets(tmp_path: Path) -> None:
    mine, foreign = Bed(tmp_path / "mine"), Bed(tmp_path / "foreign")
    with ScriptedServer(foreign.authority, lambda _asked: Said()) as server:
        proxy = FlowerProxy(server.url, mine.identity("a"), tmp_path / "proxy", timeout_s=10)
        proxy.start()
        trust = ssl.create_default_context(cafile=str(tmp_path / "proxy" / "loopback.pem"))
        port = int(proxy.address.rpartition(":")[2])
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=20)
        connection.request("POST", PULL, b"secret")
        answer = connection.getresponse()
        assert answer.status == 502
        assert json.loads(answer.read()) == {"detail": "the server cannot be reached"}
        connection.close()
        proxy.stop()
    assert server.asked == []


def test_stopping_closes_the_door_and_starting_again_is_another_proxy(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    proxy = FlowerProxy("https://127.0.0.1:1", bed.identity("a"), tmp_path / "proxy")
    port = int(proxy.address.rpartition(":")[2])
    proxy.start()
    held = socket.create_connection(("127.0.0.1", port), timeout=10)
    proxy.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    held.close()
    again = FlowerProxy("https://127.0.0.1:1", bed.identity("a"), tmp_path / "proxy", port=port)
    assert again.address == f"127.0.0.1:{port}"
    again.stop()
    again.stop()  # idempotent


# Its two files


def test_the_certificate_is_good_for_loopback_alone_and_new_each_time(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    loopback_context(tmp_path)
    first = x509.load_pem_x509_certificate((tmp_path / "loopback.pem").read_bytes())
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    basic = first.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (True, 0)
    assert first.not_valid_before_utc < before < first.not_valid_after_utc
    loopback_context(tmp_path)
    second = x509.load_pem_x509_certificate((tmp_path / "loopback.pem").read_bytes())
    assert first.public_key() != second.public_key()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loopback.pem"]


def test_the_node_key_is_the_devices_key_written_anew_and_private(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    target = tmp_path / "node-key"
    target.write_text("an old one that others may read")
    target.chmod(0o644)
    files = bed.identity("a")
    write_node_key(files.key, target)
    mine = load_pem_private_key(files.key.read_bytes(), None)
    node = load_ssh_private_key(target.read_bytes(), None)
    assert node.private_numbers() == mine.private_numbers()  # type: ignore[union-attr]
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [None, b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_that_is_none_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{path}: cannot be written as a node key"):
        write_node_key(path, tmp_path / "node-key")
    assert not (tmp_path / "node-key").exists()


def test_a_link_in_place_of_the_node_key_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "node-key").symlink_to(precious)
    write_node_key(Bed(tmp_path / "bed").identity("a").key, tmp_path / "node-key")
    assert precious.read_text() == "mine"
    assert not (tmp_path / "node-key").is_symlink()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="loopback certificate cannot be written"):
        loopback_context(tmp_path / "nowhere")


@pytest.mark.parametrize("port", [65_536, 2**40, -1])
def test_a_port_that_cannot_be_is_an_error_with_its_number(tmp_path: Path, port: int) -> None:
    with pytest.raises(TransportError, match=rf"cannot listen on 127\.0\.0\.1:{port}: "):
        FlowerProxy("https://127.0.0.1:1", Bed(tmp_path).identity("a"), tmp_path / "proxy", port=port)


def test_it_tells_a_supernode_how_to_come_in(rig: Rig) -> None:
    arguments = dict(zip(rig.proxy.arguments[::2], rig.proxy.arguments[1::2], strict=True))
    assert arguments["--superlink"] == rig.proxy.address
    assert Path(arguments["--root-certificates"]).read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    load_ssh_private_key(Path(arguments["--auth-supernode-private-key"]).read_bytes(), None)
    assert rig.folder.stat().st_mode & 0o077 == 0
    asked: list[Asked] = rig.server.asked
    assert asked == []
