"""The local API over real sockets: predictions for programs on this device, and nothing for anybody else."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from tests.support.telemetry import wait_until

from hedgerow.edge_agent.local_api import handler as handler_module
from hedgerow.edge_agent.local_api.server import MAX_CONNECTIONS, LocalApi
from hedgerow.edge_agent.local_api.token import load_or_make_token
from hedgerow.shared.errors import AuthError, StorageError, TransportError
from hedgerow.shared.specs import TensorSpec

SPECS = {
    "window": TensorSpec("window", "float32", (2, 3), "window"),
    "large": TensorSpec("large", "float32", (1000, 1000), "window"),
}


class Found(msgspec.Struct):
    """Stands in the place of a prediction: what the inference part returns is encoded as it is."""

    spec: str
    total: float
    scores: npt.NDArray[np.float32]


def total(spec: str, sample: npt.NDArray[Any]) -> Found:
    if sample.flat[0] == 666:
        raise RuntimeError("engine broke")
    if sample.flat[0] == 503:
        raise StorageError("no model is loaded")
    return Found(spec, float(sample.sum()), sample.astype(np.float32).ravel()[:2])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApi]:
    running = LocalApi(
        token_file=tmp_path / "api-token", predict=total, specs=lambda: SPECS, status=lambda: {"up": True}
    )
    running.start()
    yield running
    assert running.stop()


def ask(
    api: LocalApi,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    token: str | None = "",
    **headers: str,
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        given.setdefault("Authorization", f"Bearer {token or api.token}")
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    data = json.loads(answer.read())
    connection.close()
    return answer.status, data


def predict(api: LocalApi, data: Any, **more: Any) -> tuple[int, Any]:
    return ask(api, "POST", "/v1/predict", json.dumps({"spec": "window", "data": data}).encode(), **more)


def test_a_json_sample_is_predicted(api: LocalApi) -> None:
    assert predict(api, [[1, 2, 3], [4, 5, 6]]) == (
        200,
        {"spec": "window", "total": 21.0, "scores": [1.0, 2.0]},
    )


def test_a_raw_sample_is_predicted(api: LocalApi) -> None:
    raw = np.ones((1000, 1000), "<f4").tobytes()

    status, answer = ask(
        api, "POST", "/v1/predict", raw, Content_Type="application/octet-stream", X_Hedgerow_Spec="large"
    )

    assert (status, answer["total"]) == (200, 1e6)


def test_one_connection_serves_many_requests(api: LocalApi) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    body = json.dumps({"spec": "window", "data": [[1, 2, 3], [4, 5, 6]]}).encode()
    for _ in range(50):
        connection.request("POST", "/v1/predict", body, {"Authorization": f"Bearer {api.token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()


def test_health_needs_no_token_and_status_does(api: LocalApi) -> None:
    assert ask(api, "GET", "/v1/health", token=None) == (200, {"status": "ok"})
    assert ask(api, "GET", "/v1/status") == (200, {"up": True})
    assert ask(api, "GET", "/v1/status", token=None)[0] == 401
    assert ask(api, "GET", "/v1/status", token="wrong")[0] == 401


@pytest.mark.parametrize("path", ["/v1/health", "/v1/status", "/v1/predict", "/nowhere"])
def test_foreign_hosts_and_pages_are_refused_everywhere(api: LocalApi, path: str) -> None:
    method = "POST" if path.endswith("predict") else "GET"

    assert ask(api, method, path, Host="evil.example")[1]["error"] == "host"
    assert ask(api, method, path, Origin="https://evil.example")[1]["error"] == "origin"
    assert ask(api, method, path, Host=f"evil.example:{api.port}")[0] == 403


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        ([[1, 2]], 400, "input"),
        ([[1, 2, 3], [4, 5, "x"]], 400, "input"),
        ([[666, 0, 0], [0, 0, 0]], 500, "internal"),
        ([[503, 0, 0], [0, 0, 0]], 503, "unavailable"),
    ],
)
def test_errors_are_json_with_a_reason(api: LocalApi, data: Any, status: int, reason: str) -> None:
    got, answer = predict(api, data)

    assert (got, answer["error"]) == (status, reason)
    assert "engine broke" not in answer["detail"]
    assert predict(api, [[1, 2, 3], [4, 5, 6]])[0] == 200


def test_what_is_not_there_is_named(api: LocalApi) -> None:
    assert ask(api, "GET", "/v2/other")[0] == 404
    status, answer = ask(api, "POST", "/v1/predict", b'{"spec":"zz","data":[]}')
    assert (status, answer["error"]) == (404, "spec")
    assert "large, window" in answer["detail"]


def raw_exchange(api: LocalApi, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("PUT /v1/predict HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        ("GET /v1/health HTTP/1.1\r\n\r\n", b"403"),
        ("GET /v1/health HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil\r\n\r\n", b"403"),
        ("rubbish\r\n\r\n", b"400"),
        ("GET /v1/health HTTP/9.9\r\n\r\n", b"505"),
        ("GET /" + "x" * 70_000 + " HTTP/1.1\r\n\r\n", b"414"),
        ("GET /v1/health HTTP/1.1\r\n" + "X: y\r\n" * 200 + "\r\n", b"431"),
        ("POST /v1/predict HTTP/1.1\r\nHost: localhost:{port}\r\n{auth}\r\n", b"411"),
        ("POST /v1/predict HTTP/1.1\r\nHost: localhost:{port}\r\n{auth}Content-Length: 2000000\r\n\r\n", b"413"),
        ("POST /v1/predict HTTP/1.1\r\nHost: localhost:{port}\r\n{auth}Content-Length: 5\r\nContent-Length: 9\r\n\r\n", b"411"),
        ("POST /v1/predict HTTP/1.1\r\nHost: localhost:{port}\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
    ],
)  # fmt: skip
def test_requests_out_of_form_are_refused_and_the_connection_closed(
    api: LocalApi, request_text: str, status: bytes
) -> None:
    text = request_text.replace("{port}", str(api.port)).replace(
        "{auth}", f"Authorization: Bearer {api.token}\r\n"
    )

    answer = raw_exchange(api, text.encode())

    # A request line that is none gets the bare body, as HTTP/0.9 had it.
    assert answer.startswith(b"HTTP/1.1 " + status) or b'"error":"request"' in answer


def test_a_body_of_a_refused_request_is_not_taken_for_the_next_one(api: LocalApi) -> None:
    inner = (
        f"GET /v1/status HTTP/1.1\r\nHost: localhost:{api.port}\r\nAuthorization: Bearer {api.token}\r\n\r\n"
    )
    outer = f"POST /v1/predict HTTP/1.1\r\nHost: evil\r\nContent-Length: {len(inner)}\r\n\r\n{inner}"

    answer = raw_exchange(api, outer.encode())

    assert answer.count(b"HTTP/1.1") == 1
    assert b'"up"' not in answer


def test_slow_clients_lose_their_place(api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "REQUEST_S", 0.3)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost:{api.port}\r\nAuthorization: Bearer {api.token}\r\n"

    answer = raw_exchange(api, (head + "Content-Length: 50\r\n\r\nhalf").encode())
    half_a_head = raw_exchange(api, head.encode()[:40])

    assert answer.startswith(b"HTTP/1.1 408")
    assert not half_a_head.startswith(b"HTTP/1.1 200")
    assert predict(api, [[1, 2, 3], [4, 5, 6]])[0] == 200


def test_idle_connections_are_closed(api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "IDLE_S", 0.2)

    assert raw_exchange(api, b"") == b""


def test_connections_are_bounded_and_places_come_back(api: LocalApi) -> None:
    held = [socket.create_connection(("127.0.0.1", api.port), timeout=10) for _ in range(MAX_CONNECTIONS)]
    assert wait_until(lambda: ask(api, "GET", "/v1/health")[0] == 503)
    assert ask(api, "GET", "/v1/health")[1]["error"] == "busy"
    for connection in held:
        connection.close()

    assert wait_until(lambda: ask(api, "GET", "/v1/health")[0] == 200)


def test_requests_at_one_time_are_answered_each(api: LocalApi) -> None:
    answers: list[tuple[int, float]] = []

    def client(n: int) -> None:
        status, answer = predict(api, [[n, 0, 0], [0, 0, 0]])
        answers.append((status, answer["total"]))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [(200, float(n)) for n in range(10)]


def test_stopping_cuts_open_connections(tmp_path: Path) -> None:
    running = LocalApi(token_file=tmp_path / "t", predict=total, specs=lambda: SPECS, status=dict)
    running.start()
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(b"GET /v1/health HTTP/1.1\r\n")
        assert wait_until(lambda: bool(running._server._open))
        assert running.stop()
        assert connection.recv(10) == b""


def test_it_listens_on_the_loopback_only(api: LocalApi) -> None:
    assert api._server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_named(tmp_path: Path, api: LocalApi) -> None:
    with pytest.raises(TransportError, match=str(api.port)):
        LocalApi(token_file=tmp_path / "t", predict=total, specs=lambda: SPECS, status=dict, port=api.port)


def test_the_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "api-token"

    token = load_or_make_token(path)

    assert len(token) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make_token(path) == token
    assert load_or_make_token(tmp_path / "other") != token


def test_a_token_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    load_or_make_token(path)
    path.chmod(0o644)
    with pytest.raises(AuthError, match="chmod 600"):
        load_or_make_token(path)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(AuthError, match="no usable token"):
        load_or_make_token(path)
    with pytest.raises(StorageError, match="nowhere"):
        load_or_make_token(tmp_path / "nowhere" / "api-token")
