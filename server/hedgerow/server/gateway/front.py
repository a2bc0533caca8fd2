"""The gateway's ASGI front: refuses what is not allowed, names the device, bounds the body, then hands on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from hedgerow.server.gateway import paths
from hedgerow.shared.errors import AuthError, ContentError

LOG = logging.getLogger(__name__)


class Devices(Protocol):
    """Who a certificate belongs to."""

    def device_of(self, peer_cert_der: bytes) -> str:
        """Return the device id. Raises AuthError if unregistered, revoked, expired or of another CA."""


class BodyError(ContentError):
    """A body went over its bound, or stalled, while it was read."""


class Front:
    """An ASGI app. ``scope["hedgerow.peer_cert"]`` (DER or None) is put there by the connection that it comes from.

    The certificate is judged anew for every request, so that a revoked device's open connection is served no more.
    """

    def __init__(
        self,
        devices: Devices,
        mounts: Sequence[paths.Mount],
        *,
        max_requests_per_device: int,
        body_timeout_s: float,
    ) -> None:
        self._devices = devices
        self._mounts = tuple(mounts)
        self._max_requests = max_requests_per_device
        self._body_timeout_s = body_timeout_s
        self._running: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        refusal = self._judge(scope)
        if refusal is not None:
            self.counters[refusal[0].name.lower()] += 1
            await _refuse(send, *refusal)
            return
        device = scope["hedgerow.device"]
        if device is None:
            await self._serve(scope, receive, send)
            return
        if self._running[device] >= self._max_requests:
            self.counters["too_many_requests"] += 1
            await _refuse(send, HTTPStatus.TOO_MANY_REQUESTS, "too many requests of this device at once")
            return
        self._running[device] += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._running[device] -= 1
            if not self._running[device]:
                del self._running[device]

    def _judge(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        """Name the device in the scope, or return why the request is refused."""
        path = scope["path"]
        scope["hedgerow.device"] = None
        if not paths.is_allowed(path) or paths.find(self._mounts, path) is None:
            return HTTPStatus.NOT_FOUND, "no such path"
        certificate = scope.get("hedgerow.peer_cert")
        if certificate is None:
            if paths.is_open(scope["method"], path):
                return None
            return (
                HTTPStatus.UNAUTHORIZED,
                "a device certificate is needed: join first (hedgerow agent join TOKEN)",
            )
        try:
            scope["hedgerow.device"] = self._devices.device_of(certificate)
        except AuthError as error:
            if paths.is_open(scope["method"], path):
                return None
            return HTTPStatus.FORBIDDEN, str(error)
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        mount = paths.find(self._mounts, scope["path"])
        if mount is None:
            await _refuse(send, HTTPStatus.NOT_FOUND, "no such path")
            return
        limit = paths.max_body_bytes(scope["path"], mount)
        declared = _declared(scope)
        if declared is not None and declared > limit:
            await _refuse(
                send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have at most {limit} bytes"
            )
            return
        guarded = _Bounded(receive, send, limit, self._body_timeout_s)
        try:
            await mount.app(scope, guarded.receive, guarded.send)
        except BodyError as error:
            LOG.debug("%s: %s", scope["path"], error)
        finally:
            guarded.let_go()
        if guarded.refusal is not None and not guarded.answered:
            self.counters[guarded.refusal[0].name.lower()] += 1
            await _refuse(send, *guarded.refusal)


class _Bounded:
    """A request's receive and send that bound the body, in bytes and in time between its pieces.

    Once the body is refused, what the app answers to that is dropped: it would call it an error of its own.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, timeout_s: float) -> None:
        self._receive: Receive | None = receive
        self._send: Send | None = send
        self._limit = limit
        self._left = limit
        self._timeout_s = timeout_s
        self._complete = False
        self.answered = False
        self.refusal: tuple[HTTPStatus, str] | None = None

    async def receive(self) -> Message:
        """Return the next event. Raises BodyError if the body is too large or stalls."""
        if self._receive is None:
            return {"type": "http.disconnect"}
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._timeout_s):
                event = await self._receive()
        except TimeoutError:
            raise self._refused(HTTPStatus.REQUEST_TIMEOUT, "the body stalled") from None
        if event["type"] == "http.request":
            self._left -= len(event.get("body", b""))
            self._complete = not event.get("more_body", False)
            if self._left < 0:
                detail = f"the body may have at most {self._limit} bytes"
                raise self._refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        return event

    async def send(self, event: Message) -> None:
        """Send on, unless the body was refused before the answer began."""
        if self._send is not None and (self.answered or self.refusal is None):
            self.answered = True
            await self._send(event)

    def let_go(self) -> None:
        """Forget the connection: frameworks keep requests in cycles, and a connection's buffers with them."""
        self._receive = self._send = None

    def _refused(self, status: HTTPStatus, detail: str) -> BodyError:
        self.refusal = status, detail
        return BodyError(detail)


def _declared(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) <= 15:
            return int(value)
    return None


async def _refuse(send: Send, status: HTTPStatus, detail: str) -> None:
    body = json.dumps({"error": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
