"""The device routes over real TLS through the gateway, as joined devices and as strangers."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fleet import FleetServer, heartbeat_of, running_fleet

from hedgerow.edge_agent.join.identity import signing_request
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.server.pki.certificates import new_key
from hedgerow.shared import limits
from hedgerow.shared.identity import SERVER_NAME
from hedgerow.shared.messages import JobAssignment, TrainerExit

Fleet = tuple[FleetServer, list[Any]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), 2) as running:
        yield running


class Raw:
    """Plain HTTP over TLS, so that a test can send what no client of ours would."""

    def __init__(self, server: FleetServer, context: ssl.SSLContext) -> None:
        self.address = ("127.0.0.1", server.gateway.port)
        self.context = context

    def __call__(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        connection.sock = self.open()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            data = response.read()
            return response.status, json.loads(data) if data[:1] == b"{" else data
        finally:
            connection.close()

    def open(self) -> ssl.SSLSocket:
        raw = socket.create_connection(self.address, 10)
        return self.context.wrap_socket(raw, server_hostname=SERVER_NAME)


@pytest.fixture
def device(fleet: Fleet) -> Raw:
    return Raw(fleet[0], device_context(fleet[1][0].identity_files()))


@pytest.fixture
def stranger(fleet: Fleet) -> Raw:
    context = ssl.create_default_context(cadata=fleet[0].authority.pem)
    return Raw(fleet[0], context)


def join_body(server: FleetServer, device: str, changes: dict[str, Any] | None = None) -> bytes:
    token = server.fleet.tokens.issue()
    body = {
        "token_id": token.id,
        "secret": token.secret,
        "device": device,
        "csr_pem": signing_request(new_key(), device),
    }
    return json.dumps({**body, **(changes or {})}).encode()


POSTS = ["renew", "heartbeat", "events", "trainer-exit"]


@pytest.mark.parametrize(("method", "name"), [("GET", "desired"), *(("POST", name) for name in POSTS)])
def test_strangers_get_the_ca_and_joining_and_nothing_else(
    fleet: Fleet, stranger: Raw, method: str, name: str
) -> None:
    assert stranger("GET", "/v1/device/ca") == (200, fleet[0].authority.pem.encode())
    status, answer = stranger(method, f"/v1/device/{name}", b"{}" if method == "POST" else None)
    assert status in (401, 403)
    assert answer["error"]


def test_join_over_the_wire_answers_201_with_everything(fleet: Fleet, stranger: Raw) -> None:
    status, answer = stranger("POST", "/v1/device/join", join_body(fleet[0], "wire-1"))

    assert status == 201
    assert answer["device"] == "wire-1" and answer["ca_pem"] == fleet[0].authority.pem
    assert answer["tuf_root"] and answer["server_id"] == fleet[0].authority.server_id


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"secret": "x" * 32}, 403, "refused"),
        ({"token_id": "ffffffff"}, 403, "refused"),
        ({"device": "device-0", "csr_pem": signing_request(new_key(), "device-0")}, 409, "name-taken"),
        ({"device": "Bad Name"}, 400, "bad-request"),
        ({"device": "server"}, 400, "bad-request"),
        ({"csr_pem": "nonsense"}, 400, "bad-request"),
        ({"csr_pem": "x" * 5000}, 400, "bad-request"),
        ({"secret": 5}, 400, "bad-request"),
    ],
)
def test_refused_joins_say_why(
    fleet: Fleet, stranger: Raw, changes: dict[str, Any], status: int, code: str
) -> None:
    got, answer = stranger("POST", "/v1/device/join", join_body(fleet[0], "wire-2", changes))

    assert (got, answer["error"]) == (status, code)
    assert len(answer["detail"]) > 10
    assert fleet[0].fleet.devices.get("wire-2") is None


def test_guessing_is_slowed_down_and_the_guesser_is_told(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 0) as (server, _):
        stranger = Raw(server, ssl.create_default_context(cadata=server.authority.pem))
        answers = [stranger("POST", "/v1/device/join", b"{}")[0] for _ in range(25)]

    assert answers[:20] == [400] * 20
    assert 429 in answers[20:]


GARBAGE = [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"device": 1e999}', b"{}" * 10]


@pytest.mark.parametrize("name", POSTS)
@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_refused_with_a_sentence(device: Raw, name: str, body: bytes) -> None:
    status, answer = device("POST", f"/v1/device/{name}", body)

    assert status == 400
    assert answer["error"] == "bad-request" and answer["detail"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
shapes = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("device", "epoch", "events", "csr_pem", "job_id", "code", "token_id", "secret", "state", "sent_us"),
        json_values,
    ),
)


@given(st.sampled_from([*POSTS, "join"]), shapes | json_values)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_json_brings_the_server_down(fleet: Fleet, device: Raw, name: str, value: object) -> None:
    status, _ = device("POST", f"/v1/device/{name}", json.dumps(value).encode())

    assert status < 500


@pytest.mark.parametrize(
    "query", ["revision=x", "revision=-2", "wait_s=61", "wait_s=nan", "wait_s=-1", "revision=1e300"]
)
def test_odd_questions_are_refused(device: Raw, query: str) -> None:
    status, answer = device("GET", f"/v1/device/desired?{query}")

    assert (status, answer["error"]) == (400, "bad-request")


def test_oversized_bodies_are_refused_before_they_are_read_whole(fleet: Fleet, device: Raw) -> None:
    small, large = b" " * (20 * limits.KIB), b" " * (limits.MAX_CONTROL_BODY_BYTES + 1)

    assert device("POST", "/v1/device/heartbeat", small)[0] == 413
    assert device("POST", "/v1/device/events", large)[0] == 413


def test_heartbeat_of_another_device_is_refused(device: Raw, fleet: Fleet) -> None:
    import msgspec

    status, answer = device("POST", "/v1/device/heartbeat", msgspec.json.encode(heartbeat_of("device-1")))

    assert (status, answer["error"]) == (403, "refused")
    assert fleet[0].fleet.heartbeats.get("device-1") is None


def test_heartbeat_is_answered_with_the_servers_clock_and_the_revision(device: Raw) -> None:
    import msgspec

    status, answer = device("POST", "/v1/device/heartbeat", msgspec.json.encode(heartbeat_of("device-0")))

    assert status == 200
    assert abs(answer["server_time_us"] / 1e6 - time.time()) < 60
    assert answer["desired_revision"] >= 0


def test_long_poll_resolves_with_the_wish_and_otherwise_with_nothing(fleet: Fleet, device: Raw) -> None:
    desired = fleet[0].fleet.desired
    seen = desired.get("device-0").revision
    assert device("GET", f"/v1/device/desired?revision={seen}&wait_s=0.05")[0] == 204

    setting = threading.Timer(0.1, desired.set_job, (["device-0"], JobAssignment("j", "r", "h")))
    setting.start()
    status, answer = device("GET", f"/v1/device/desired?revision={seen}&wait_s=30")
    setting.join()

    assert (status, answer["revision"], answer["jobs"][0]["job_id"]) == (200, seen + 1, "j")
    desired.clear_job("j")


def test_trainer_exit_is_told_on(fleet: Fleet, device: Raw) -> None:
    heard: list[tuple[str, TrainerExit]] = []

    async def hear(name: str, told: TrainerExit) -> None:
        heard.append((name, told))

    fleet[0].fleet.on_trainer_exit(hear)
    status, _ = device("POST", "/v1/device/trainer-exit", b'{"job_id": "j", "code": -9, "reason": "killed"}')

    assert status == 204
    assert heard == [("device-0", TrainerExit("j", -9, "killed"))]


def test_revoked_devices_open_connection_is_served_no_more(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, homes):
        raw = Raw(server, device_context(homes[0].identity_files()))
        connection = http.client.HTTPConnection(*raw.address, timeout=10)
        connection.sock = raw.open()
        connection.request("GET", "/v1/device/desired")
        assert connection.getresponse().read()
        server.fleet.devices.revoke("device-0", "stolen")
        connection.request("GET", "/v1/device/desired")
        response = connection.getresponse()

        assert response.status == 403
        assert b"revoked" in response.read()
        connection.close()
