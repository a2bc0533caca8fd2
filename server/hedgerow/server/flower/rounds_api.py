"""The batched round routes of our own trainers: one long poll for an instruction, one upload for a reply, the model.

What Flower's routes do in nine requests a round happens here in two, on the same link state, with the same messages and
objects, and without a thread: nothing here waits for anything but the network.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from starlette.types import Receive, Scope, Send

from hedgerow.server.flower.asgi import (
    Body,
    Pace,
    Refusal,
    answer,
    content_length,
    device_of,
    header,
    query,
    read_body,
    refuse,
)
from hedgerow.server.flower.intake import Intake
from hedgerow.server.flower.jobs import OpenJob, Outstanding
from hedgerow.server.flower.link import FlowerLink
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError, TransportError

LOG = logging.getLogger(__name__)
_SLICE_BYTES = 32 * 1024
_CLOSE_FROM_BYTES = 4 * 1024 * 1024


class RoundsApi:
    """An ASGI app for ``/v1/device/round/*`` and ``/v1/device/models/*``."""

    def __init__(self, link: FlowerLink) -> None:
        self._link = link
        self._pace = Pace(link.config.stall_s, link.config.min_bytes_per_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        method, path, body = scope["method"], scope["path"], Body(receive)
        try:
            if (method, path) == ("GET", fleetwire.NEXT_PATH):
                await self._next(scope, send)
            elif (method, path) == ("POST", fleetwire.REPLY_PATH):
                await self._reply(scope, body, send)
            elif method == "GET" and path.startswith(fleetwire.MODELS_PATH):
                await self._model(scope, send)
            else:
                raise Refusal(HTTPStatus.NOT_FOUND, "no such path", close=True)
        except Refusal as refusal:
            if method == "POST" and refusal.status is not HTTPStatus.REQUEST_TIMEOUT:
                await body.read_away(scope)
            await refuse(send, refusal)
        except TransportError as error:
            LOG.info("%s", error)

    async def _next(self, scope: Scope, send: Send) -> None:
        device, job, activation = self._trainer(scope)
        entry = job.outstanding.get(query(scope, "received"))
        if entry is not None and entry.device == device and entry.frames:
            entry.frames = []
            self._link.state.object_store.delete(entry.message_id)
        try:
            wait_s = min(float(query(scope, "wait_s") or 0), fleetwire.MAX_WAIT_S)
        except ValueError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "wait_s must be a number of seconds") from None
        frames = await self._wait(device, job, activation, wait_s)
        if frames is None:
            await answer(send, HTTPStatus.NO_CONTENT, [], fleetwire.FRAMES_TYPE)
            return
        parts = [part for frame in frames for part in (fleetwire.frame_head(len(frame)), frame)]
        await answer(send, HTTPStatus.OK, parts, fleetwire.FRAMES_TYPE)

    async def _wait(self, device: str, job: OpenJob, activation: str, wait_s: float) -> list[bytes] | None:
        link = self._link
        deadline = link.clock() + wait_s
        while True:
            if (entry := self._deliver(device, job, activation)) is not None:
                return entry.frames
            left = deadline - link.clock()
            if left <= 0 or link.draining:
                return None
            await link.wakers.wait((device, job.job_id), left)
            if link.job(job.job_id) is not job:
                raise Refusal(HTTPStatus.GONE, "the job is closed")
            link.check_trainer(device, job.job_id, activation)

    def _deliver(self, device: str, job: OpenJob, activation: str) -> Outstanding | None:
        """Return the instruction to hand out: one whose receipt was never confirmed, else a new one."""
        mine = [entry for entry in job.outstanding.values() if entry.device == device]
        for entry in mine:
            if entry.frames and not self._link.state.is_replied(entry.message_id):
                return entry
        if all(entry.delivered_to is not None for entry in mine):
            return None
        for message in self._link.state.get_message_ins(mine[0].node_id, 1, run_id=job.run_id):
            message_id = message.metadata.message_id
            store = self._link.state.object_store
            tree = store.get_object_tree(message_id)
            ids = dict.fromkeys(node.object_id for node in iterate_object_tree(tree))
            head = PullMessagesResponse(
                messages_list=[message_to_proto(message)], message_object_trees=[tree]
            )
            contents = [store.get(object_id) or b"" for object_id in ids]
            delivered = job.outstanding[message_id]
            delivered.delivered_to = activation
            delivered.frames = [head.SerializeToString(), *contents]
            return delivered
        return None

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> None:
        device, job, _ = self._trainer(scope)
        n_bytes = content_length(scope)
        message_id = header(scope, fleetwire.MESSAGE_HEADER)
        entry = job.outstanding.get(message_id)
        if entry is None or entry.device != device:
            raise self._unexpected(job, message_id)
        if n_bytes > entry.max_bytes:
            self._link.counters["over-size"] += 1
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a reply of {n_bytes} bytes where this round takes at most {entry.max_bytes}",
                close=True,
            )
        await self._link.budget.admit(message_id, n_bytes)
        if message_id not in job.outstanding:
            raise self._unexpected(job, message_id)
        entry.upload += 1
        serial = entry.upload
        try:
            await Intake(self._link, job, entry, n_bytes).take(read_body(receive, self._pace))
        except ContentError as error:
            self._link.counters["malformed"] += 1
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error), close=True) from error
        finally:
            if message_id in job.outstanding and entry.upload == serial and not self._link.is_complete(entry):
                self._link.state.forget_upload(message_id)
                self._link.budget.release(message_id)
        # A connection keeps the buffers that a large upload filled for as long as it lives.
        close = n_bytes >= _CLOSE_FROM_BYTES
        await answer(send, HTTPStatus.OK, [b"{}"], "application/json", close=close)

    def _unexpected(self, job: OpenJob, message_id: str) -> Refusal:
        why = "duplicate" if message_id in job.unreleased else self._link.closed(message_id)
        self._link.counters[why or "unexpected"] += 1
        if why == "duplicate":
            return Refusal(HTTPStatus.CONFLICT, "this instruction has been answered already", close=True)
        detail = (
            "too late: this round no longer waits for a reply"
            if why
            else "no such reply is asked of this device"
        )
        return Refusal(HTTPStatus.GONE, detail, close=True)

    async def _model(self, scope: Scope, send: Send) -> None:
        _, job, _ = self._trainer(scope)
        sha256 = scope["path"].removeprefix(fleetwire.MODELS_PATH)
        model = job.model
        if model is None or sha256 != job.model_sha256:
            raise Refusal(HTTPStatus.NOT_FOUND, "this is not the job's model now")
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(len(model)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(model), _SLICE_BYTES):
            part = model[start : start + _SLICE_BYTES]
            more = start + _SLICE_BYTES < len(model)
            await send({"type": "http.response.body", "body": part, "more_body": more})
        if not model:
            await send({"type": "http.response.body", "body": b""})

    def _trainer(self, scope: Scope) -> tuple[str, OpenJob, str]:
        """Return device, job and activation of a request of a live trainer. Raises Refusal otherwise."""
        device = device_of(scope)
        job_id = header(scope, fleetwire.JOB_HEADER)
        activation = header(scope, fleetwire.ACTIVATION_HEADER)
        job = self._link.job(job_id)
        if job is None:
            # A question has no body that is left unread: a thousand trainers at a job's end keep their connections.
            raise Refusal(HTTPStatus.GONE, f"job {job_id!r} is not open", close=scope["method"] != "GET")
        self._link.check_trainer(device, job_id, activation)
        return device, job, activation
