"""The few ASGI helpers that the batched routes need: who asks, the body in pieces with a pace to keep, an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qs

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.types import Message, Receive, Scope, Send

from hedgerow.shared.errors import TransportError

_READ_AWAY_BYTES = 512 * 1024
_READ_AWAY_S = 2.0


class Refusal(Exception):  # noqa: N818  (an answer, not a failure of ours)
    """An answer other than success; ``detail`` says what was wrong and what to do."""

    def __init__(self, status: HTTPStatus, detail: str, *, close: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.close = close


class Pace(msgspec.Struct, frozen=True):
    """How slow an upload may be: nothing for ``stall_s``, or fewer than ``min_bytes_per_s`` after twice that."""

    stall_s: float
    min_bytes_per_s: int


def header(scope: Scope, name: str) -> str:
    """Return a request header, or an empty string."""
    wanted = name.encode()
    for key, value in scope["headers"]:
        if key == wanted:
            return bytes(value).decode("latin-1")
    return ""


def query(scope: Scope, name: str) -> str:
    """Return a query parameter, or an empty string."""
    text = bytes(scope["query_string"]).decode("latin-1")
    return parse_qs(text).get(name, [""])[0]


def device_of(scope: Scope) -> str:
    """Return the device that the gateway recognised. Raises Refusal if there is none."""
    device = scope.get("hedgerow.device")
    if not isinstance(device, str):
        raise Refusal(HTTPStatus.UNAUTHORIZED, "a device certificate is needed here")
    return device


def content_length(scope: Scope) -> int:
    """Return the declared length. Raises Refusal where there is none, or none that makes sense."""
    value = header(scope, "content-length")
    if not value.isascii() or not value.isdigit() or len(value) > 12:
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the content-length must be declared", close=True)
    return int(value)


@lru_cache(maxsize=4096)
def public_key_pem(certificate_der: bytes) -> bytes:
    """Return a certificate's public key as Flower names it (PEM, SubjectPublicKeyInfo)."""
    key = x509.load_der_x509_certificate(certificate_der).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


async def read_body(receive: Receive, pace: Pace) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises Refusal if it is too slow, TransportError if the device went away."""
    loop = asyncio.get_running_loop()
    started, total = loop.time(), 0
    more = True
    while more:
        try:
            async with asyncio.timeout(pace.stall_s):
                event = await receive()
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the upload stalled", close=True) from None
        if event["type"] == "http.disconnect":
            raise TransportError("the device went away during an upload")
        chunk = event.get("body", b"")
        total += len(chunk)
        elapsed = loop.time() - started
        if elapsed > 2 * pace.stall_s and total < pace.min_bytes_per_s * elapsed:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the upload is too slow", close=True)
        more = event.get("more_body", False)
        if chunk:
            yield chunk


class Body:
    """A request's ``receive`` that knows how far it was read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._begun = self._complete = False

    async def __call__(self) -> Message:
        """Return the next event."""
        event = await self._receive()
        self._begun = True
        self._complete = event["type"] != "http.request" or not event.get("more_body", False)
        return event

    async def read_away(self, scope: Scope) -> None:
        """Read what is left of a small body before it is refused, for a connection that is closed with bytes unread is
        reset, and the answer is lost with it. A sender that waits to be told to go on is not told.
        """
        if self._complete or not (self._begun or not header(scope, "expect")):
            return
        left = _READ_AWAY_BYTES
        try:
            async with asyncio.timeout(_READ_AWAY_S):
                while not self._complete and left > 0:
                    left -= len((await self()).get("body", b""))
        except TimeoutError:
            return


async def answer(
    send: Send, status: HTTPStatus, parts: list[bytes], media_type: str, *, close: bool = False
) -> None:
    """Send a whole answer; the parts are joined only where they are small."""
    n_bytes = sum(len(part) for part in parts)
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(n_bytes).encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(parts)})


async def refuse(send: Send, refusal: Refusal) -> None:
    """Answer with the refusal as JSON."""
    body = json.dumps({"error": refusal.detail}).encode()
    await answer(send, refusal.status, [body], "application/json", close=refusal.close)
