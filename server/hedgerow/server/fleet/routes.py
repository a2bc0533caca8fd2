"""The routes of ``/v1/device/`` that concern a device itself: join, renew, desired state, heartbeat, events."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hedgerow.server.fleet.desired import DesiredStates
from hedgerow.server.fleet.enrolment import Enrolment
from hedgerow.server.fleet.events import Events
from hedgerow.server.fleet.heartbeats import Heartbeats
from hedgerow.server.fleet.http import (
    TooManyError,
    device_of,
    guarded,
    json_response,
    number,
    read,
    remote_address,
)
from hedgerow.server.pki.attempts import Attempts
from hedgerow.server.pki.trust import NameTakenError
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ContentError
from hedgerow.shared.messages import (
    EventBatch,
    Heartbeat,
    HeartbeatAck,
    JoinRequest,
    RenewRequest,
    TrainerExit,
)

TrainerExited = Callable[[str, TrainerExit], Awaitable[None] | None]
MAX_POLL_S: Final = 60.0
MAX_HEARTBEAT_BYTES: Final = 16 * limits.KIB
MAX_JOIN_BYTES: Final = 8 * limits.KIB
JOINS_AT_ONCE: Final = 4


class DeviceRoutes:
    """Serves devices. Who asks is what the gateway put into ``scope["hedgerow.device"]``; only ``ca`` and ``join`` go without."""

    def __init__(
        self,
        ca_pem: str,
        enrolment: Enrolment,
        desired: DesiredStates,
        heartbeats: Heartbeats,
        events: Events,
    ) -> None:
        self._ca_pem = ca_pem
        self._enrolment = enrolment
        self._desired = desired
        self._heartbeats = heartbeats
        self._events = events
        self._strangers = Attempts(burst=20, refill_s=3.0)
        self._everyone = Attempts(burst=200, refill_s=0.1)
        self._joins = asyncio.Semaphore(JOINS_AT_ONCE)
        self.on_trainer_exit: list[TrainerExited] = []

    def routes(self) -> list[Route]:
        """Return the routes, to be mounted at the root of the gateway."""
        return [
            Route("/v1/device/ca", guarded(self._ca), methods=["GET"]),
            Route("/v1/device/join", guarded(self._join), methods=["POST"]),
            Route("/v1/device/renew", guarded(self._renew), methods=["POST"]),
            Route("/v1/device/desired", guarded(self._poll), methods=["GET"]),
            Route("/v1/device/heartbeat", guarded(self._heartbeat), methods=["POST"]),
            Route("/v1/device/events", guarded(self._receive), methods=["POST"]),
            Route("/v1/device/trainer-exit", guarded(self._trainer_exit), methods=["POST"]),
        ]

    async def _ca(self, _request: Request) -> Response:
        return PlainTextResponse(self._ca_pem)

    async def _join(self, request: Request) -> Response:
        address = remote_address(request)
        wait_s = max(self._strangers.wait_s(address), self._everyone.wait_s("all"))
        if wait_s > 0:
            raise TooManyError(wait_s)
        try:
            asked = await read(request, JoinRequest, MAX_JOIN_BYTES)
            async with self._joins:
                response = await asyncio.to_thread(self._enrolment.join, asked)
        except (AuthError, ContentError, NameTakenError):
            self._strangers.failed(address)
            self._everyone.failed("all")
            raise
        return json_response(response, 201)

    async def _renew(self, request: Request) -> Response:
        device = device_of(request)
        asked = await read(request, RenewRequest, MAX_JOIN_BYTES)
        return json_response(await asyncio.to_thread(self._enrolment.renew, device, asked.csr_pem), 201)

    async def _poll(self, request: Request) -> Response:
        device = device_of(request)
        seen = int(number(request, "revision", -1, -1, 2**53))
        wait_s = number(request, "wait_s", 0, 0, MAX_POLL_S)
        state = await self._desired.wait(device, seen, wait_s)
        return Response(status_code=204) if state is None else json_response(state)

    async def _heartbeat(self, request: Request) -> Response:
        device = device_of(request)
        heartbeat = await read(request, Heartbeat, MAX_HEARTBEAT_BYTES)
        if heartbeat.device != device:
            raise AuthError(f"heartbeat.device: this certificate is of {device!r}")
        self._heartbeats.record(device, heartbeat)
        return json_response(HeartbeatAck(time.time_ns() // 1000, self._desired.get(device).revision))

    async def _receive(self, request: Request) -> Response:
        device = device_of(request)
        batch = await read(request, EventBatch)
        return json_response(await self._events.receive(device, batch))

    async def _trainer_exit(self, request: Request) -> Response:
        device = device_of(request)
        told = await read(request, TrainerExit, MAX_JOIN_BYTES)
        for hear in self.on_trainer_exit:
            answer = hear(device, told)
            if inspect.isawaitable(answer):
                await answer
        return Response(status_code=204)
