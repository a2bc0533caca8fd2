"""Bodies against numpy, headers against the set that is allowed, and connections that do more than one thing."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.local_api.decode import decode_json, decode_raw
from hedgerow.edge_agent.local_api.guard import body_length, judge_source, judge_token
from hedgerow.edge_agent.local_api.server import LocalApi
from hedgerow.edge_agent.local_api.token import load_or_make_token
from hedgerow.shared.errors import AuthError, ContentError
from hedgerow.shared.specs import TensorSpec

KINDS = {"float32": "window", "uint8": "image", "int64": "tokens", "int32": "tokens"}
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def samples(draw: st.DrawFn) -> tuple[TensorSpec, np.ndarray[Any, Any]]:
    dtype = draw(st.sampled_from(sorted(KINDS)))
    shape = draw(shapes)
    spec = TensorSpec("x", dtype, shape, "scores")  # type: ignore[arg-type]
    size = int(np.prod(shape))
    if dtype == "float32":
        values = draw(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=size, max_size=size)
        )
    else:
        bounds = np.iinfo(dtype)
        values = draw(st.lists(st.integers(int(bounds.min), int(bounds.max)), min_size=size, max_size=size))
    return spec, np.array(values, dtype).reshape(shape)


@given(samples())
@settings(deadline=None)
def test_lists_and_bytes_give_the_array_that_they_were_made_of(given_sample: tuple[TensorSpec, Any]) -> None:
    spec, array = given_sample
    body = json.dumps({"spec": "x", "data": array.tolist()}).encode()
    for found in (
        decode_json(body, {"x": spec})[1],
        decode_raw(array.astype(array.dtype.newbyteorder("<")).tobytes(), "x", {"x": spec})[1],
    ):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


@given(samples(), st.data())
@settings(deadline=None)
def test_a_list_of_any_other_shape_is_refused(
    given_sample: tuple[TensorSpec, Any], data: st.DataObject
) -> None:
    spec, array = given_sample
    other = data.draw(shapes.filter(lambda shape: shape != spec.shape))
    values = np.zeros(other, array.dtype).tolist()
    with pytest.raises(ContentError, match=r"nested lists|numbers"):
        decode_json(json.dumps({"spec": "x", "data": values}).encode(), {"x": spec})


@given(st.text(st.characters(max_codepoint=255), max_size=30), st.integers(1, 65_535))
def test_a_host_is_ours_only_if_it_is_one_of_three_names_with_our_port(host: str, port: int) -> None:
    ours = {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}
    if port == 80:
        ours |= {"localhost", "127.0.0.1", "[::1]"}
    assert (judge_source({"Host": host}, port) is None) == (host.lower() in ours)


@given(st.text(min_size=1, max_size=60), st.text(min_size=20, max_size=60))
def test_no_other_token_passes(given_token: str, token: str) -> None:
    denied = judge_token({"Authorization": f"Bearer {given_token}"}, token)
    assert (denied is None) == (given_token.strip().encode("utf-8", "surrogatepass") == token.encode())


@given(st.text(max_size=14), st.integers(0, 3), st.integers(0, 10**9))
def test_a_length_is_a_plain_number_within_the_limit_or_none(text: str, lengths: int, limit: int) -> None:
    found = body_length({"Content-Length": text}, lengths, limit)
    digits = text.strip()
    plain = digits != "" and set(digits) <= set("0123456789") and len(digits) <= 12
    if isinstance(found, int):
        assert plain and lengths == 1
        assert found == int(digits) <= limit
    else:
        assert found.status == (413 if plain and lengths == 1 else 411)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApi]:
    def predict(spec: str, sample: np.ndarray[Any, Any]) -> object:
        if sample[0] == 9:
            return {"what": object()}
        return {"sum": sample.sum(), "spec": spec}

    running = LocalApi(
        token_file=tmp_path / "api-token",
        predict=predict,
        specs=lambda: {"x": TensorSpec("x", "int64", (2,), "tokens")},
        status=lambda: {"up": True},
    )
    running.start()
    yield running
    assert running.stop()


def question(api: LocalApi, data: list[int], version: str = "1.1", *more: str) -> bytes:
    body = json.dumps({"spec": "x", "data": data}).encode()
    head = [
        f"POST /v1/predict HTTP/{version}",
        f"Host: localhost:{api.port}",
        f"Authorization: Bearer {api.token}",
        f"Content-Length: {len(body)}",
        *more,
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


def test_requests_sent_ahead_are_answered_in_their_order(api: LocalApi) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(
            b"".join(question(api, [n, 1]) for n in range(5))
            + question(api, [5, 1], "1.1", "Connection: close")
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    found = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert [one["sum"] for one in found] == [1, 2, 3, 4, 5, 6]


def test_an_old_client_gets_one_answer_and_the_end(api: LocalApi) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(question(api, [1, 2], "1.0"))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.endswith(b'{"sum":3,"spec":"x"}')


def test_an_answer_that_cannot_be_told_is_this_requests_fault_alone(api: LocalApi) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(question(api, [9, 0]))
        connection.settimeout(10)
        assert not connection.recv(65536).startswith(b"HTTP/1.1 200")
    client = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    client.request("GET", "/v1/health")
    assert client.getresponse().status == 200
    client.close()


def test_many_programs_at_once_get_each_their_own_answer(api: LocalApi) -> None:
    found: dict[int, list[int]] = {}

    def one(number: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
        sums = []
        for n in range(10):
            body = json.dumps({"spec": "x", "data": [number * 100, n]})
            client.request("POST", "/v1/predict", body, {"Authorization": f"Bearer {api.token}"})
            sums.append(json.loads(client.getresponse().read())["sum"])
        client.close()
        found[number] = sums

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {number: [number * 100 + n for n in range(10)] for number in range(1, 9)}


def test_two_starts_at_once_agree_on_one_token_or_one_says_so(tmp_path: Path) -> None:
    found: list[object] = []
    barrier = threading.Barrier(6)

    def make() -> None:
        barrier.wait()
        try:
            found.append(load_or_make_token(tmp_path / "api-token"))
        except AuthError as error:
            found.append(str(error))  # it was there, and not written yet

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    token = load_or_make_token(tmp_path / "api-token")
    assert token in found
    assert all(one == token or "no usable token" in str(one) for one in found)
    assert len(token) >= 43
