"""Flower's own fleet routes, for stock SuperNodes and for the quiet part of our trainers' life, behind a guard.

The guard is the innermost layer: Flower has parsed the message and verified the node's signature by then, and the
gateway the device's certificate. The guard makes the two one, and checks what Flower leaves open: whose message,
whose upload, whose object a request names.
"""

from __future__ import annotations

import base64
import binascii
import logging
from http import HTTPStatus

from fastapi import FastAPI, HTTPException
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router
from google.protobuf.message import Message as Proto
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from hedgerow.server.flower.asgi import Refusal, header, public_key_pem
from hedgerow.server.flower.intake import check_push
from hedgerow.server.flower.jobs import Outstanding
from hedgerow.server.flower.link import FlowerLink
from hedgerow.server.flower.state import WatchedLinkState
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError


class _Factory:
    """What Flower's dependencies ask the state of."""

    def __init__(self, state: WatchedLinkState) -> None:
        self._state = state

    def state(self) -> WatchedLinkState:
        return self._state


def fleet_app(link: FlowerLink) -> FastAPI:
    """Return an app that serves ``/v1/fleet/*`` and nothing else of Flower."""
    # Flower logs a line a request at this level; what matters of it, the link tells.
    logging.getLogger("flwr").setLevel(logging.WARNING)
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
            Middleware(Guard, link=link),
        ],
    )
    app.state.linkstate_factory = _Factory(link.state)
    app.state.enable_supernode_auth = True
    app.include_router(router)
    return app


class Guard:
    """Lets a request through to Flower's handler only if it concerns the certificate's own node."""

    def __init__(self, app: ASGIApp, link: FlowerLink) -> None:
        self._app = app
        self._link = link

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, hand on, and note what the request changed."""
        request = scope.get("state", {}).get("protobuf_request")
        if scope["type"] != "http" or not isinstance(request, Proto):
            await self._app(scope, receive, send)
            return
        device = self._device(scope)
        if isinstance(request, ActivateNodeRequest):
            await self._activate(scope, receive, send, device)
            return
        who = (device, header(scope, fleetwire.JOB_HEADER), header(scope, fleetwire.ACTIVATION_HEADER))
        if isinstance(request, DeactivateNodeRequest):
            if not self._link.trainer_left(*who):
                scope["state"]["protobuf_response"] = DeactivateNodeResponse()
                await _empty(send)
                return
        else:
            self._touch(request, who)
            await self._check(request, device)
        await self._app(scope, receive, send)
        self._note(scope["state"].get("protobuf_response"), who[2])

    def _device(self, scope: Scope) -> str:
        device, certificate = scope.get("hedgerow.device"), scope.get("hedgerow.peer_cert")
        if not isinstance(device, str) or not isinstance(certificate, bytes):
            raise _refused(HTTPStatus.UNAUTHORIZED, "a device certificate is needed here")
        try:
            claimed = base64.b64decode(header(scope, FLEET_HTTP_PUBLIC_KEY_HEADER), validate=True)
        except binascii.Error:
            claimed = b""
        if claimed != public_key_pem(certificate):
            raise _refused(HTTPStatus.FORBIDDEN, "the node key is not the certificate's key")
        return device

    async def _activate(self, scope: Scope, receive: Receive, send: Send, device: str) -> None:
        job_id = header(scope, fleetwire.JOB_HEADER)
        if job_id and self._link.job(job_id) is None:
            raise _refused(HTTPStatus.GONE, f"job {job_id!r} is not open")
        self._link.register(device, public_key_pem(scope["hedgerow.peer_cert"]))
        await self._app(scope, receive, send)
        self._link.trainer_joined(device, job_id, header(scope, fleetwire.ACTIVATION_HEADER))

    def _touch(self, request: Proto, who: tuple[str, str, str]) -> None:
        device, job_id, activation = who
        try:
            self._link.check_trainer(device, job_id, activation)
        except Refusal as refusal:
            if job_id or activation:
                raise _refused(refusal.status, refusal.detail) from refusal
            if isinstance(request, SendNodeHeartbeatRequest | PullMessagesRequest):
                self._link.trainer_joined(device, job_id, activation)

    async def _check(self, request: Proto, device: str) -> None:
        match request:
            case PushMessagesRequest():
                await self._check_push(request, device)
            case PushObjectRequest():
                self._check_object(request, device)
            case PullObjectRequest():
                if not any(self._holds(entry, request.object_id) for entry in self._mine(device)):
                    raise _refused(
                        HTTPStatus.FORBIDDEN, "this object is not part of an instruction to this node"
                    )
            case ConfirmMessageReceivedRequest():
                if request.message_object_id not in {entry.message_id for entry in self._mine(device)}:
                    raise _refused(HTTPStatus.FORBIDDEN, "this message is not an instruction to this node")

    async def _check_push(self, request: PushMessagesRequest, device: str) -> None:
        try:
            check_push(request, self._link.node_of(device) or 0)
        except ContentError as error:
            raise _refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        instruction_id = request.messages_list[0].metadata.reply_to_message_id
        entry = self._entry(instruction_id, device)
        if entry is None:
            why = self._link.closed(instruction_id) or "unexpected"
            self._link.counters[why] += 1
            raise _refused(HTTPStatus.GONE, f"no reply is waited for here ({why})")
        # The slot is taken before the first object is sent, so that bodies of those who wait stay with them.
        await self._link.budget.admit(instruction_id, entry.max_bytes)
        entry.received_bytes = 0

    def _check_object(self, request: PushObjectRequest, device: str) -> None:
        instruction_id = self._link.state.upload_of(request.session_id) or ""
        entry = self._entry(instruction_id, device)
        if entry is None:
            raise _refused(HTTPStatus.FORBIDDEN, "this upload session is not this node's")
        entry.received_bytes += len(request.object_content)
        if entry.received_bytes > entry.max_bytes:
            self._link.counters["over-size"] += 1
            self._link.state.forget_upload(instruction_id)
            self._link.budget.release(instruction_id)
            raise _refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {entry.max_bytes} bytes in one reply"
            )

    def _note(self, response: object, activation: str) -> None:
        """Mark what a pull handed out, so that a trainer that dies is known to have lost it."""
        if isinstance(response, PullMessagesResponse):
            for message in response.messages_list:
                job = self._link.job_of(message.metadata.message_id)
                if job is not None and (entry := job.outstanding.get(message.metadata.message_id)):
                    entry.delivered_to = activation

    def _entry(self, instruction_id: str, device: str) -> Outstanding | None:
        job = self._link.job_of(instruction_id)
        entry = job.outstanding.get(instruction_id) if job is not None else None
        return entry if entry is not None and entry.device == device else None

    def _mine(self, device: str) -> list[Outstanding]:
        return self._link.outstanding_of(device)

    def _holds(self, entry: Outstanding, object_id: str) -> bool:
        try:
            tree = self._link.state.object_store.get_object_tree(entry.message_id)
        except NoObjectInStoreError:
            return False
        return any(node.object_id == object_id for node in iterate_object_tree(tree))


def _refused(status: HTTPStatus, detail: str) -> HTTPException:
    return HTTPException(status_code=int(status), detail=detail)


async def _empty(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
