"""Joining over real TLS: against a real server, and against a listener that records whatever it is sent."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.fleet import TUF_ROOT, FleetServer, client_of, running_server

from hedgerow.edge_agent.config import MqttConfig, read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.identity import make_key
from hedgerow.edge_agent.join.joining import join, name_from_host
from hedgerow.edge_agent.join.pinned import _pin_of
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import utc_now
from hedgerow.shared.errors import AuthError, ConfigError, ContentError, TransportError
from hedgerow.shared.join_token import new_token


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


class Recorder:
    """A TLS listener that answers every request with one body and remembers all that it was sent."""

    def __init__(self, authority: CertificateAuthority, answers: dict[str, tuple[int, bytes]]) -> None:
        pair = authority.server_pair()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair.certificate, pair.key)
        self.answers = answers
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self.context.wrap_socket(raw, server_side=True) as connection:
                connection.settimeout(5)
                data = whole_request(connection)
                self.heard += data
                path = data.split(b" ")[1].decode()
                status, body = self.answers.get(path, (404, b""))
                head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)

    def close(self) -> None:
        self.listener.close()


def whole_request(connection: ssl.SSLSocket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    length = re.search(rb"content-length: (\d+)", data, re.IGNORECASE)
    wanted = data.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(data) < wanted:
        data += connection.recv(65536)
    return data


@pytest.fixture
def recorder(tmp_path: Path, server: FleetServer) -> Iterator[Recorder]:
    """A server of another fleet."""
    other = CertificateAuthority.create(tmp_path / "other")
    made = Recorder(other, {"/v1/device/ca": (200, other.pem.encode())})
    yield made
    made.close()


def files(home: Path) -> list[str]:
    return (
        sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
        if home.exists()
        else []
    )


def test_joined_home_holds_everything_that_an_agent_needs(server: FleetServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    token = server.fleet.tokens.issue(["line-a"]).text()
    joined = join(token, home, url=server.url + "/", device="full", mqtt=MqttConfig("mqtt://broker:1883"))

    assert (joined.device, joined.server_url, joined.groups) == ("full", server.url, ("line-a",))
    place = AgentHome(home)
    config = read_config(place.config)
    assert (config.device, config.server_url, config.mqtt.url) == ("full", server.url, "mqtt://broker:1883")
    assert place.tuf_root.read_text() == TUF_ROOT
    assert place.ca.read_text() == server.authority.pem
    assert place.key.stat().st_mode & 0o777 == 0o600
    assert place.joined() and files(place.joining) == []
    assert client_of(place, server.url).get("/v1/device/desired").status == 200


def test_key_never_leaves_the_device(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "pki")
    recorder = Recorder(
        authority, {"/v1/device/ca": (200, authority.pem.encode()), "/v1/device/join": (403, b"{}")}
    )
    home = AgentHome(tmp_path / "home")
    with pytest.raises(AuthError):
        join(new_token(authority.pin).text(), home.path, url=recorder.url, device="quiet")
    recorder.close()

    key = (home.joining / "quiet.key.pem").read_text()
    assert "BEGIN CERTIFICATE REQUEST" in recorder.heard.decode()
    assert "PRIVATE" not in recorder.heard.decode()
    assert all(line.encode() not in recorder.heard for line in key.splitlines()[1:-1])


def test_wrong_pin_is_refused_before_the_secret_leaves(
    server: FleetServer, recorder: Recorder, tmp_path: Path
) -> None:
    token = server.fleet.tokens.issue()
    with pytest.raises(AuthError, match="not the one that made the token"):
        join(token.text(), tmp_path / "home", url=recorder.url, device="careful")

    assert recorder.heard.startswith(b"GET /v1/device/ca ")
    assert recorder.heard.count(b"HTTP/1.1") == 1
    for secret in (token.secret, token.id, token.ca_pin, "careful"):
        assert secret.encode() not in recorder.heard
    assert files(tmp_path / "home") == []


def test_man_in_between_who_shows_the_right_ca_gets_no_secret(server: FleetServer, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "other")
    recorder = Recorder(other, {"/v1/device/ca": (200, server.authority.pem.encode())})
    token = server.fleet.tokens.issue()
    with pytest.raises(AuthError, match="not the server of this fleet"):
        join(token.text(), tmp_path / "home", url=recorder.url, device="careful")
    recorder.close()

    assert token.secret.encode() not in recorder.heard
    assert b"join" not in recorder.heard


def test_a_device_of_the_fleet_cannot_play_the_server(server: FleetServer, tmp_path: Path) -> None:
    home = server.join_device(tmp_path / "rogue", f"rogue-{tmp_path.name[-1]}")
    recorder = Recorder(
        CertificateAuthority.create(tmp_path / "x"), {"/v1/device/ca": (200, server.authority.pem.encode())}
    )
    recorder.context.load_cert_chain(home.certificate, home.key)
    token = server.fleet.tokens.issue()
    with pytest.raises(AuthError, match="not the server of this fleet"):
        join(token.text(), tmp_path / "home", url=recorder.url, device="careful")
    recorder.close()

    assert token.secret.encode() not in recorder.heard


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b""), (200, b""), (200, b"garbage"), (200, b"\xff" * 100), (200, b"x" * 100_000)],
)
def test_what_is_no_ca_is_refused(
    server: FleetServer, recorder: Recorder, tmp_path: Path, status: int, body: bytes
) -> None:
    recorder.answers["/v1/device/ca"] = (status, body)
    with pytest.raises(ContentError):
        join(server.fleet.tokens.issue().text(), tmp_path / "home", url=recorder.url, device="careful")


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("flip", [0x01, 0x02, 0x80, 0xFF])
def test_a_ca_with_any_byte_changed_is_the_pinned_one_or_refused(tmp_path: Path, flip: int) -> None:
    """What comes back is read before anything of it is believed: no bytes may do more than be refused."""
    authority = CertificateAuthority.create(tmp_path / "pki")
    der = authority.certificate.public_bytes(Encoding.DER)
    for place in range(len(der)):
        changed = base64.encodebytes(der[:place] + bytes([der[place] ^ flip]) + der[place + 1 :]).decode()
        answer = f"-----BEGIN CERTIFICATE-----\n{changed}-----END CERTIFICATE-----\n"
        with contextlib.suppress(ContentError):
            if _pin_of(answer) == authority.pin:
                found = x509.load_pem_x509_certificate(answer.encode())
                assert found.public_key() == authority.certificate.public_key()


def test_a_chain_where_one_ca_is_expected_is_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "pki")

    with pytest.raises(ContentError, match="more than one certificate"):
        _pin_of(authority.pem * 2)


@pytest.mark.parametrize(
    "changes", [{"certificate_pem": "garbage"}, {"device": "other"}, {"certificate_pem": "foreign"}, None]
)
def test_answer_that_cannot_work_is_not_installed(tmp_path: Path, changes: dict[str, str] | None) -> None:
    authority = CertificateAuthority.create(tmp_path / "pki")
    foreign = authority.issuer.device("pump-1", make_key(tmp_path / "k").public_key(), utc_now())
    answer = {
        "device": "pump-1",
        "certificate_pem": "",
        "ca_pem": authority.pem,
        "tuf_root": "{}",
        "server_id": "s",
    }
    if changes and changes.get("certificate_pem") == "foreign":
        changes = {"certificate_pem": foreign.public_bytes(Encoding.PEM).decode()}
    body = b"[]" if changes is None else json.dumps({**answer, **changes}).encode()
    recorder = Recorder(
        authority, {"/v1/device/ca": (200, authority.pem.encode()), "/v1/device/join": (201, body)}
    )
    with pytest.raises(ContentError):
        join(new_token(authority.pin).text(), tmp_path / "home", url=recorder.url, device="pump-1")
    recorder.close()

    assert not AgentHome(tmp_path / "home").joined()


def test_unreachable_server_is_a_matter_for_another_try(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TransportError, match="cannot be reached"):
        join(new_token("0" * 64).text(), tmp_path, url=f"https://127.0.0.1:{port}", device="a")


def test_plain_text_server_is_told_apart(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(TransportError, match="TLS failed"):
        join(
            new_token("0" * 64).text(),
            tmp_path,
            url=f"https://127.0.0.1:{listener.getsockname()[1]}",
            device="a",
        )
    listener.close()


@pytest.mark.parametrize(
    "url", ["http://x", "https://", "ftp://x", "https://x/path", "https://x:99999", "https://u:p@x"]
)
def test_bad_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        join(new_token("0" * 64).text(), tmp_path, url=url, device="a")


def test_spent_expired_and_unknown_tokens_are_refused_with_the_servers_reason(
    server: FleetServer, tmp_path: Path
) -> None:
    spent = server.fleet.tokens.issue()
    join(spent.text(), tmp_path / "first", url=server.url, device="spender")
    expired = server.fleet.tokens.issue(life_s=1)
    with server.database.transaction() as session:
        from hedgerow.server.fleet.tables import JoinTokenRow

        row = session.get(JoinTokenRow, expired.id)
        assert row is not None
        row.expires_at = utc_now() - timedelta(seconds=1)
    unknown = new_token(server.authority.pin)

    for token, reason in ((spent, "used already"), (expired, "expired"), (unknown, "not known here")):
        with pytest.raises(AuthError, match=reason):
            join(token.text(), tmp_path / "second", url=server.url, device="second")
    assert not AgentHome(tmp_path / "second").joined()


def test_taken_name_is_refused_and_the_same_token_works_with_another(
    server: FleetServer, tmp_path: Path
) -> None:
    server.join_device(tmp_path / "first", "taken")
    token = server.fleet.tokens.issue().text()
    with pytest.raises(ContentError, match="'taken' is in the fleet already"):
        join(token, tmp_path / "second", url=server.url, device="taken")

    assert join(token, tmp_path / "second", url=server.url, device="free").device == "free"


def test_joined_home_is_not_joined_again_by_accident(server: FleetServer, tmp_path: Path) -> None:
    server.join_device(tmp_path, "once")
    with pytest.raises(ConfigError, match="belongs to 'once'"):
        join(server.fleet.tokens.issue().text(), tmp_path, url=server.url, device="twice")


def test_joining_again_keeps_settings_and_name_and_replaces_the_identity(
    server: FleetServer, tmp_path: Path
) -> None:
    home = server.join_device(tmp_path, "again")
    text = home.config.read_text().replace("api_port = 8765", "api_port = 1234")
    home.config.write_text(text)
    before = home.certificate.read_bytes()
    token = server.fleet.tokens.issue(device="again").text()
    join(token, tmp_path, url=server.url, again=True)

    assert read_config(home.config).api_port == 1234
    assert home.certificate.read_bytes() != before
    assert client_of(home, server.url).get("/v1/device/desired").status == 200


def test_lost_answer_is_asked_for_again_with_the_same_token(server: FleetServer, tmp_path: Path) -> None:
    token = server.fleet.tokens.issue().text()
    home = AgentHome(tmp_path / "home")
    home.tuf_root.parent.mkdir(parents=True)
    home.tuf_root.mkdir()  # the device's disk fails after the server has answered
    (home.tuf_root / "in-the-way").touch()
    from hedgerow.shared.errors import StorageError

    with pytest.raises(StorageError):
        join(token, home.path, url=server.url, device="unlucky")
    (home.tuf_root / "in-the-way").unlink()
    home.tuf_root.rmdir()

    assert join(token, home.path, url=server.url, device="unlucky").device == "unlucky"


@pytest.mark.parametrize("name", ["server", "Bad_Name", ""])
def test_bad_names_are_refused_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(ConfigError, match="--device"):
            join(new_token("0" * 64).text(), tmp_path, url="https://127.0.0.1:1", device=name)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Pump-1.plant.example", "pump-1"),
        ("raspberry_pi", "raspberry-pi"),
        ("-x-", "x"),
        ("ä", ""),
        ("a" * 80, "a" * 63),
    ],
)
def test_names_are_made_of_host_names(host: str, name: str) -> None:
    assert name_from_host(host) == name


def test_damaged_pending_key_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"garbage")
    key = make_key(tmp_path / "k")

    assert make_key(tmp_path / "k").private_numbers() == key.private_numbers()
