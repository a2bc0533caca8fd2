"""Single requests of a trainer, over one connection: answers become values, refusals become errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, DeactivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError, Message

from hedgerow.edge_agent.trainer.fleet.connection import Answer, Bytes, Connection
from hedgerow.edge_agent.trainer.fleet.errors import JobClosedError, ReplacedError
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.shared import fleetwire, limits
from hedgerow.shared.errors import AuthError, ContentError, HedgerowError, TransportError

Outcome = Literal["accepted", "late", "duplicate"]
_PROTOBUF = "application/protobuf"
_MAX_INSTRUCTION_BYTES = limits.MAX_INLINE_MODEL_BYTES + limits.MAX_CONTROL_BODY_BYTES
_CALL_S = 20.0


class InactiveError(TransportError):
    """The server does not know this node to be active: activate, then try again."""


class Calls:
    """Requests of one trainer: ``job_id`` and ``activation`` say which process of the device it is."""

    def __init__(self, connection: Connection, signer: NodeSigner, job_id: str, activation: str) -> None:
        self._connection = connection
        self._signer = signer
        self._who = {fleetwire.JOB_HEADER: job_id, fleetwire.ACTIVATION_HEADER: activation}

    def activate(self, heartbeat_interval_s: float) -> int:
        """Activate the node and return its id."""
        request = ActivateNodeRequest(
            public_key=self._signer.public_pem, heartbeat_interval=heartbeat_interval_s
        )
        answer = self._fleet("activate-node", request)
        try:
            return int(ActivateNodeResponse.FromString(bytes(answer.body)).node_id)
        except DecodeError as error:
            raise ContentError("the server's answer to activate-node cannot be read") from error

    def deactivate(self, node_id: int) -> None:
        """Deactivate the node."""
        self._fleet("deactivate-node", DeactivateNodeRequest(node_id=node_id), timeout_s=3.0)

    def heartbeat(self, node_id: int, interval_s: float) -> None:
        """Tell that this process lives."""
        request = SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=interval_s)
        self._fleet("send-node-heartbeat", request)

    def next(self, wait_s: float, received: str) -> bytearray | None:
        """Wait for an instruction; ``received`` confirms the one before."""
        wait_s = min(wait_s, fleetwire.MAX_WAIT_S)
        target = f"{fleetwire.NEXT_PATH}?wait_s={wait_s:.3f}&received={received}"
        answer = self._connection.request(
            "GET", target, self._who, timeout_s=wait_s + _CALL_S, max_answer_bytes=_MAX_INSTRUCTION_BYTES
        )
        if answer.status == HTTPStatus.NO_CONTENT:
            return None
        return _checked(answer).body

    def model(self, sha256: str, timeout_s: float) -> bytearray:
        """Download a model."""
        answer = self._connection.request(
            "GET",
            fleetwire.MODELS_PATH + quote(sha256, safe=""),
            self._who,
            timeout_s=timeout_s,
            max_answer_bytes=limits.MAX_UPDATE_BYTES,
        )
        return _checked(answer).body

    def reply(self, message_id: str, parts: Sequence[Bytes], timeout_s: float) -> Outcome:
        """Upload a reply; ``late`` and ``duplicate`` need no further try."""
        headers = {
            **self._who,
            "content-type": fleetwire.FRAMES_TYPE,
            fleetwire.MESSAGE_HEADER: message_id,
        }
        answer = self._connection.request("POST", fleetwire.REPLY_PATH, headers, parts, timeout_s=timeout_s)
        match answer.status:
            case HTTPStatus.GONE:
                return "late"
            case HTTPStatus.CONFLICT if "answered already" in _detail(answer):
                return "duplicate"
        _checked(answer)
        return "accepted"

    def _fleet(self, name: str, request: Message, timeout_s: float = _CALL_S) -> Answer:
        answer = self._signed(name, request, timeout_s)
        # Signed at a time that the server does not believe: once more, by its own clock.
        if answer.status == HTTPStatus.UNAUTHORIZED and self._signer.correct(answer.date):
            answer = self._signed(name, request, timeout_s)
        return _checked(answer)

    def _signed(self, name: str, request: Message, timeout_s: float) -> Answer:
        headers = {**self._who, **self._signer.headers(), "content-type": _PROTOBUF, "accept": _PROTOBUF}
        body = [request.SerializeToString()]
        return self._connection.request("POST", f"/v1/fleet/{name}", headers, body, timeout_s=timeout_s)


def _checked(answer: Answer) -> Answer:
    if answer.status == HTTPStatus.OK:
        return answer
    raise _error(answer.status, _detail(answer))


_ERRORS: dict[int, Callable[[str], HedgerowError]] = {
    HTTPStatus.BAD_REQUEST: lambda detail: ContentError(f"the server refused the request: {detail}"),
    HTTPStatus.UNAUTHORIZED: lambda detail: AuthError(
        f"the server refuses this node: {detail}; is this device's clock right?"
    ),
    HTTPStatus.FORBIDDEN: lambda detail: AuthError(f"the server refuses this device: {detail}"),
    HTTPStatus.NOT_FOUND: lambda detail: ContentError(f"the server has no such thing: {detail}"),
    HTTPStatus.CONFLICT: ReplacedError,
    HTTPStatus.GONE: JobClosedError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: lambda detail: ContentError(f"too much for the server: {detail}"),
    HTTPStatus.PRECONDITION_REQUIRED: InactiveError,
}


def _error(status: int, detail: str) -> HedgerowError:
    make = _ERRORS.get(status)
    return make(detail) if make else TransportError(f"the server answered {status}: {detail}")


def _detail(answer: Answer) -> str:
    try:
        body = json.loads(bytes(answer.body) or b"{}")
    except ValueError:
        return "no reason given"
    detail = body.get("error") or body.get("detail") if isinstance(body, dict) else None
    return str(detail or body)[:300]
