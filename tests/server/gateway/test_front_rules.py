"""The front without a network: who is served, how much is read, and what is answered when it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from hedgerow.server.gateway.front import BodyError, Front
from hedgerow.server.gateway.paths import Mount
from hedgerow.shared.errors import AuthError

LIMIT = 100
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ECHO = "/v1/device/echo"


class Devices:
    """Knows certificates by their bytes; ``b"revoked"`` was one."""

    def device_of(self, peer_cert_der: bytes) -> str:
        if peer_cert_der == b"revoked":
            raise AuthError("the certificate of 'pump-1' was revoked")
        return peer_cert_der.decode()


class Client:
    """One request to the front: its body in pieces, and what came back."""

    def __init__(self, pieces: Sequence[bytes] = (b"",), *, stalls: bool = False) -> None:
        self._pieces = list(pieces)
        self._stalls = stalls
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._pieces:
            if self._stalls:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or self._stalls}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        starts = [message["status"] for message in self.sent if message["type"] == "http.response.start"]
        assert len(starts) == 1, "answered once"
        return int(starts[0])

    @property
    def said(self) -> str:
        body = b"".join(message.get("body", b"") for message in self.sent)
        return str(json.loads(body)["error"])


class Stand:
    """A front before one app, which is called for what the front lets through."""

    def __init__(self, app: App | None = None, *, at_once: int = 4, timeout_s: float = 30.0) -> None:
        self.seen: list[tuple[str | None, bytes]] = []
        self.front = Front(
            Devices(),
            [Mount("/v1/device/", app or self._echo, LIMIT)],
            max_requests_per_device=at_once,
            body_timeout_s=timeout_s,
        )

    async def _echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope["hedgerow.device"], await whole(receive)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"error": ""}'})

    async def ask(self, client: Client, changes: dict[str, Any] | None = None) -> Client:
        scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": ECHO, "headers": [], "hedgerow.peer_cert": b"pump-1",
        }  # fmt: skip
        await self.front(scope | (changes or {}), client.receive, client.send)
        return client


async def whole(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def ask(stand: Stand, changes: dict[str, Any] | None = None, client: Client | None = None) -> Client:
    return asyncio.run(stand.ask(client or Client(), changes))


def test_a_device_is_named_by_its_certificate_and_by_nothing_it_says() -> None:
    stand = Stand()

    assert ask(stand, {"hedgerow.device": "pump-2"}).status == 200
    assert stand.seen == [("pump-1", b"")]


@pytest.mark.parametrize("path", ["/", "/v1/device", "/v1/control/x", "/v1/device/../x", "/v1/fleet/x"])
def test_what_is_not_there_is_not_found_before_anybody_is_asked_who_they_are(path: str) -> None:
    stand = Stand()

    client = ask(stand, {"path": path, "hedgerow.peer_cert": b"revoked"})

    assert (client.status, client.said) == (404, "no such path")
    assert stand.front.counters == {"not_found": 1}
    assert not stand.seen


def test_without_a_certificate_it_says_how_to_get_one() -> None:
    stand = Stand()

    client = ask(stand, {"hedgerow.peer_cert": None})

    assert client.status == 401
    assert "hedgerow agent join TOKEN" in client.said
    assert stand.front.counters == {"unauthorized": 1}
    assert not stand.seen


def test_a_refused_certificate_is_told_why() -> None:
    stand = Stand()

    client = ask(stand, {"hedgerow.peer_cert": b"revoked"})

    assert (client.status, client.said) == (403, "the certificate of 'pump-1' was revoked")
    assert stand.front.counters == {"forbidden": 1}
    assert not stand.seen


@pytest.mark.parametrize("certificate", [None, b"revoked"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/device/ca"), ("POST", "/v1/device/join")])
def test_open_requests_are_served_to_anyone_as_nobody(
    certificate: bytes | None, method: str, path: str
) -> None:
    """A device that was revoked may join again, with a token; it is not the device of its old certificate then."""
    stand = Stand()

    assert ask(stand, {"method": method, "path": path, "hedgerow.peer_cert": certificate}).status == 200
    assert stand.seen == [(None, b"")]


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_anything_but_http_is_left_unanswered(kind: str) -> None:
    stand = Stand()

    assert ask(stand, {"type": kind}).sent == []
    assert not stand.seen


@pytest.mark.parametrize("declared", [b"101", b"999999999999999"])
def test_a_body_that_says_it_is_too_large_is_refused_unread(declared: bytes) -> None:
    stand = Stand()

    client = ask(stand, {"headers": [(b"content-length", declared)]}, Client([b"x" * 10]))

    assert (client.status, client.said) == (413, f"the body may have at most {LIMIT} bytes")
    assert not stand.seen


@pytest.mark.parametrize("declared", [b"-1", b"ten", b"1e9", b"9" * 40, b"", b" 5", b"\xb2"])
def test_a_declaration_that_is_no_number_bounds_nothing_but_the_body_is_bounded_all_the_same(
    declared: bytes,
) -> None:
    stand = Stand()

    assert ask(stand, {"headers": [(b"content-length", declared)]}, Client([b"x" * 101])).status == 413
    assert ask(stand, {"headers": [(b"content-length", declared)]}, Client([b"x" * 100])).status == 200


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_a_body_in_pieces_is_whole_within_the_bound_and_refused_beyond_it(pieces: list[bytes]) -> None:
    stand = Stand()

    client = ask(stand, client=Client(pieces))

    if sum(map(len, pieces)) <= LIMIT:
        assert client.status == 200
        assert stand.seen == [("pump-1", b"".join(pieces))]
    else:
        assert client.status == 413
        assert not stand.seen
        assert stand.front.counters == {"request_entity_too_large": 1}


def test_a_body_that_stalls_is_given_up() -> None:
    stand = Stand(timeout_s=0.05)

    client = ask(stand, client=Client([b"abc"], stalls=True))

    assert (client.status, client.said) == (408, "the body stalled")
    assert stand.front.counters == {"request_timeout": 1}


def test_a_slow_answer_is_no_stalled_body() -> None:
    """Long polls wait for minutes, with their body read."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await whole(receive)
        await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 204, "headers": []})

    assert ask(Stand(slow, timeout_s=0.05)).status == 204


@pytest.mark.parametrize("answers", [500, 200])
def test_what_an_app_makes_of_a_refused_body_is_not_sent(answers: int) -> None:
    async def catching(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await whole(receive)
        except BodyError:
            await send({"type": "http.response.start", "status": answers, "headers": []})
            await send({"type": "http.response.body", "body": b"mine"})

    client = ask(Stand(catching), client=Client([b"x" * 60, b"x" * 60]))

    assert client.status == 413
    assert b"mine" not in b"".join(message.get("body", b"") for message in client.sent)


def test_an_answer_that_had_begun_is_not_begun_again() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await whole(receive)

    assert ask(Stand(early), client=Client([b"x" * 60, b"x" * 60])).status == 202


def test_what_an_app_keeps_of_a_request_leads_nowhere_afterwards() -> None:
    """Frameworks keep requests in cycles; a connection's buffers must not hang on them."""
    kept: list[Any] = []

    async def keeping(scope: Scope, receive: Receive, send: Send) -> None:
        kept.extend([receive, send])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    client = ask(Stand(keeping))

    assert asyncio.run(kept[0]()) == {"type": "http.disconnect"}
    asyncio.run(kept[1]({"type": "http.response.body", "body": b"late"}))
    assert len(client.sent) == 1


def test_places_are_per_device_and_come_free_whatever_happens() -> None:
    async def scenario() -> None:
        gate, fails = asyncio.Event(), False

        async def held(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            if fails:
                raise RuntimeError("an app's own fault")
            await send({"type": "http.response.start", "status": 200, "headers": []})

        stand = Stand(held, at_once=2)
        first = [asyncio.create_task(stand.ask(Client())) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await stand.ask(Client())
        assert (refused.status, refused.said) == (429, "too many requests of this device at once")
        assert stand.front.counters == {"too_many_requests": 1}
        other = asyncio.create_task(stand.ask(Client(), {"hedgerow.peer_cert": b"pump-2"}))
        await asyncio.sleep(0)
        gate.set()
        assert [client.status for client in await asyncio.gather(*first, other)] == [200] * 3

        fails = True
        for _ in range(5):
            with pytest.raises(RuntimeError, match="own fault"):
                await stand.ask(Client())
        assert not stand.front._running, "nobody is remembered who is not here"

    asyncio.run(scenario())


def test_nobody_has_no_place_to_fill() -> None:
    """Joining is slowed down by its own counting of attempts, not by the places of a device."""
    stand = Stand(at_once=0)

    assert ask(stand, {"path": "/v1/device/join", "hedgerow.peer_cert": None}).status == 200
    assert ask(stand).status == 429
