"""The habits of the routes where the ground gives way: a database that refuses, a body that never ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from hedgerow.server.fleet import http
from hedgerow.server.fleet.http import guarded, number, read, refusal
from hedgerow.server.pki.trust import NameTakenError
from hedgerow.shared.errors import AuthError, BudgetError, ContentError, StorageError
from hedgerow.shared.messages import EventBatch, TrainerExit


def request(*chunks: bytes, query: str = "", hang: bool = False, **scope: Any) -> Request:
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        if not waiting and hang:
            await asyncio.sleep(60)
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting) or hang}

    plain = {"type": "http", "method": "POST", "path": "/x", "headers": [], "query_string": query.encode()}
    return Request({**plain, **scope}, receive)


def test_body_in_pieces_is_put_together() -> None:
    found = asyncio.run(read(request(b'{"job_id": "j",', b' "code": 1}'), TrainerExit))

    assert found == TrainerExit("j", 1)


def test_body_is_cut_off_at_its_bound_while_it_streams() -> None:
    source = request(*[b"x" * 100] * 50)
    with pytest.raises(http.TooLargeError, match="larger than 250 bytes"):
        asyncio.run(read(source, TrainerExit, 250))


def test_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.05)
    with pytest.raises(ContentError, match="did not arrive"):
        asyncio.run(read(request(b"{", hang=True), TrainerExit))


@pytest.mark.parametrize(
    "body", [b"\xff", b'{"job_id": 1}', b'{"job_id": "j", "code": "x"}', b"[" * 3000, b""]
)
def test_other_shapes_are_content_errors(body: bytes) -> None:
    with pytest.raises(ContentError, match="not what is expected"):
        asyncio.run(read(request(body), TrainerExit))


def test_too_many_events_in_a_batch_are_refused() -> None:
    event = {
        "sequence": 1,
        "at_us": 0,
        "severity": "info",
        "body": {"type": "notice", "code": "", "text": ""},
    }
    body = json.dumps({"epoch": "e", "events": [event] * 257}).encode()
    with pytest.raises(ContentError, match="256"):
        asyncio.run(read(request(body), EventBatch))


def test_unknown_fields_of_newer_devices_are_tolerated() -> None:
    found = asyncio.run(read(request(b'{"job_id": "j", "code": 1, "colour": "red"}'), TrainerExit))

    assert found == TrainerExit("j", 1)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AuthError("who"), 403, "refused"),
        (NameTakenError("taken"), 409, "name-taken"),
        (ContentError("odd"), 400, "bad-request"),
        (http.TooLargeError("big"), 413, "too-large"),
        (http.TooManyError(7), 429, "wait"),
        (StorageError("full"), 503, "storage"),
        (BudgetError("spent"), 400, "bad-request"),
    ],
)
def test_every_known_error_has_its_answer(error: Exception, status: int, code: str) -> None:
    async def handler(_: Request) -> Any:
        raise error

    response = asyncio.run(_answer(handler))
    assert (response.status_code, json.loads(bytes(response.body))["error"]) == (status, code)
    if status == 429:
        assert response.headers["retry-after"] == "8"


def test_database_that_refuses_is_a_503_and_says_nothing_of_it(server: Any) -> None:
    with server.database.transaction() as session:
        session.connection().exec_driver_sql("DROP TABLE events")

    async def handler(_: Request) -> Any:
        return server.fleet.events.latest()

    response = asyncio.run(_answer(handler))
    assert response.status_code == 503
    assert b"events" not in bytes(response.body)


def test_error_of_ours_is_not_swallowed() -> None:
    async def handler(_: Request) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(_answer(handler))


@pytest.mark.parametrize(("query", "value"), [("", 5.0), ("n=3", 3.0), ("n=1.5", 1.5), ("n=1&n=2", 2.0)])
def test_number_is_read_or_defaults(query: str, value: float) -> None:
    assert number(request(query=query), "n", 5, 0, 10) == value


@pytest.mark.parametrize("query", ["n=", "n=x", "n=nan", "n=inf", "n=-1", "n=11", "n=" + "9" * 400])
def test_number_out_of_bounds_is_named(query: str) -> None:
    with pytest.raises(ContentError, match="n:"):
        number(request(query=query), "n", 5, 0, 10)


def test_refusals_are_json_for_programs_and_people() -> None:
    response = refusal(418, "teapot", "short and stout")

    assert json.loads(bytes(response.body)) == {"error": "teapot", "detail": "short and stout"}
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("device", [None, 5, b"a"])
def test_who_has_no_device_in_the_scope_is_no_device(device: object) -> None:
    with pytest.raises(AuthError, match="device certificate"):
        http.device_of(_with_device(device))


def _with_device(device: object) -> Request:
    made = request()
    made.scope["hedgerow.device"] = device
    return made


async def _answer(handler: Any) -> Any:
    return await guarded(handler)(request())
