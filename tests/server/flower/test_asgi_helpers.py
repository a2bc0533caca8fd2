"""Headers, lengths and bodies of the batched routes as the network may bring them."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.flower import asgi
from hedgerow.server.flower.asgi import Pace, Refusal
from hedgerow.server.flower.trainers import Trainers
from hedgerow.shared.errors import TransportError


def scope(*headers: tuple[bytes, bytes], query: bytes = b"") -> dict[str, Any]:
    return {"type": "http", "headers": list(headers), "query_string": query}


def read(events: list[dict[str, Any]], pace: Pace | None = None) -> list[bytes]:
    """Return the pieces of a body that arrives as ``events``; after the last one nothing ever comes."""

    async def scenario() -> list[bytes]:
        waiting = iter(events)

        async def receive() -> Any:
            for event in waiting:
                return event
            return await asyncio.get_running_loop().create_future()

        return [piece async for piece in asgi.read_body(receive, pace or Pace(5, 1))]

    return asyncio.run(scenario())


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


@given(st.lists(st.binary(max_size=20), max_size=6), st.binary(max_size=20))
def test_a_body_arrives_as_it_was_sent_without_empty_pieces(pieces: list[bytes], last: bytes) -> None:
    found = read([*map(piece, pieces), piece(last, more=False)])

    assert b"".join(found) == b"".join([*pieces, last])
    assert all(found)


def test_an_event_without_body_is_the_end() -> None:
    assert read([{"type": "http.request"}]) == []


def test_a_device_that_goes_away_is_told_apart_from_one_that_ends() -> None:
    with pytest.raises(TransportError, match="went away"):
        read([piece(b"x"), {"type": "http.disconnect"}])


def test_an_upload_that_stalls_is_refused_and_its_connection_closed() -> None:
    with pytest.raises(Refusal, match="stalled") as caught:
        read([piece(b"x")], Pace(0.02, 1))

    assert (caught.value.status, caught.value.close) == (HTTPStatus.REQUEST_TIMEOUT, True)


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"42", 42), (b"999999999999", 999_999_999_999), (b"007", 7)],
)
def test_a_declared_length_is_read(value: bytes, length: int) -> None:
    assert asgi.content_length(scope((b"content-length", value))) == length


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+1",
        b"1.0",
        b"1e3",
        b" 1",
        b"1 ",
        b"0x10",
        b"1_000",
        b"9" * 13,
        b"\xb2",
        b"\xd9\xa1",
        b"1,1",
    ],
)
def test_a_length_that_makes_no_sense_is_refused(value: bytes) -> None:
    with pytest.raises(Refusal, match="content-length") as caught:
        asgi.content_length(scope((b"content-length", value)))

    assert (caught.value.status, caught.value.close) == (HTTPStatus.LENGTH_REQUIRED, True)


def test_no_length_at_all_is_refused() -> None:
    with pytest.raises(Refusal):
        asgi.content_length(scope())


@given(st.binary(max_size=30))
def test_any_header_and_any_query_is_text(data: bytes) -> None:
    assert asgi.header(scope((b"x", data)), "x") == data.decode("latin-1")
    assert isinstance(asgi.query(scope(query=data), "job"), str)


def test_what_is_not_there_is_empty_and_the_first_of_several_counts() -> None:
    assert asgi.header(scope((b"x", b"1"), (b"x", b"2")), "x") == "1"
    assert asgi.header(scope(), "x") == ""
    assert asgi.query(scope(query=b"a=1&a=2&b=%20c"), "a") == "1"
    assert asgi.query(scope(query=b"a=1&a=2&b=%20c"), "b") == " c"
    assert asgi.query(scope(query=b"a=1"), "c") == ""


@pytest.mark.parametrize("device", [None, b"pump-1", 3, ["pump-1"]])
def test_only_the_gateway_says_who_asks(device: Any) -> None:
    with pytest.raises(Refusal, match="certificate") as caught:
        asgi.device_of(scope((b"hedgerow.device", b"pump-1")) | {"hedgerow.device": device})

    assert caught.value.status == HTTPStatus.UNAUTHORIZED
    assert asgi.device_of(scope() | {"hedgerow.device": "pump-1"}) == "pump-1"


@pytest.mark.parametrize("close", [True, False])
@given(detail=st.text(max_size=30))
def test_a_refusal_is_one_json_document_of_the_declared_length(close: bool, detail: str) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asgi.refuse(send, Refusal(HTTPStatus.GONE, detail, close=close)))

    start, body = sent
    headers = dict(start["headers"])
    assert start["status"] == 410
    assert json.loads(body["body"]) == {"error": detail}
    assert int(headers[b"content-length"]) == len(body["body"])
    assert (headers.get(b"connection") == b"close") is close


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["activate", "touch", "leave", "drop", "expire"]),
        st.sampled_from("ab"),
        st.sampled_from(["", "one", "two"]),
        st.sampled_from("xyz"),
    ),
    max_size=30,
)


@given(STEPS)
def test_who_is_connected_follows_a_plain_table_whatever_happens_in_whatever_order(
    steps: list[tuple[str, str, str, str]],
) -> None:
    """The oracle: a table from (device, job) to (activation, last sign of life), changed as the docstrings say."""
    trainers, table = Trainers(10.0), dict[tuple[str, str], tuple[str, float]]()
    for n, (what, device, job, activation) in enumerate(steps):
        now, key = 4.0 * n, (device, job)
        current = key in table and table[key][0] == activation
        match what:
            case "activate":
                replaced = trainers.activate(device, job, activation, now)
                assert (replaced is not None) is (key in table and not current)
                table[key] = (activation, now)
            case "touch":
                assert trainers.touch(device, job, activation, now) is current
                if current:
                    table[key] = (activation, now)
            case "leave":
                assert (trainers.leave(device, job, activation) is not None) is current
                if current:
                    del table[key]
            case "drop":
                gone = trainers.drop(device)
                assert {g.job_id for g in gone} == {j for d, j in table if d == device}
                table = {k: v for k, v in table.items() if k[0] != device}
            case _:
                late = {k for k, (_, at) in table.items() if now - at > 10.0}
                assert {(g.device, g.job_id) for g in trainers.expire(now)} == late
                table = {k: v for k, v in table.items() if k not in late}
        for name in "ab":
            assert trainers.has(name) is any(d == name for d, _ in table)
