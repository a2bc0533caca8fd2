"""HTTP habits of the device routes: bounded bodies, JSON in and out, every refusal with a code and a sentence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hedgerow.server.pki.trust import NameTakenError
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ContentError, HedgerowError, StorageError
from hedgerow.shared.messages import decode
from hedgerow.shared.unreadable import UNREADABLE

T = TypeVar("T", bound=msgspec.Struct)
Handler = Callable[[Request], Awaitable[Response]]
BODY_TIMEOUT_S = 20.0

_log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[HedgerowError], int, str], ...] = (
    (NameTakenError, 409, "name-taken"),
    (AuthError, 403, "refused"),
    (ContentError, 400, "bad-request"),
    (StorageError, 503, "storage"),
)


class TooManyError(HedgerowError):
    """The caller must wait; ``wait_s`` says how long."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed attempts; wait {wait_s:.0f} s")
        self.wait_s = wait_s


class TooLargeError(ContentError):
    """The body is over its bound."""


def json_response(value: object, status: int = 200) -> Response:
    """Return ``value`` (a struct or builtins) as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refusal(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error that a program can tell by ``error`` and a person by ``detail``."""
    body = msgspec.json.encode({"error": code, "detail": detail})
    return Response(body, status, headers, "application/json")


def device_of(request: Request) -> str:
    """Return who is asking, as the gateway found by its certificate. Raises AuthError if there is none."""
    device = request.scope.get("hedgerow.device")
    if not isinstance(device, str):
        raise AuthError("this needs a device certificate")
    return device


async def read(request: Request, kind: type[T], limit: int = limits.MAX_CONTROL_BODY_BYTES) -> T:
    """Return the body as a ``kind`` of message. Raises ContentError if it is too large, slow, no JSON, or of another shape."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limit:
                    raise TooLargeError(f"the body is larger than {limit} bytes")
    except TimeoutError as error:
        raise ContentError(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from error
    try:
        return decode(data, kind)
    except UNREADABLE as error:
        raise ContentError(f"the body is not what is expected here: {error}") from error


def number(request: Request, name: str, default: float, low: float, high: float) -> float:
    """Return a query parameter as a number within bounds. Raises ContentError naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise ContentError(f"{name}: not a number: {text[:40]!r}") from error
    if not low <= value <= high:
        raise ContentError(f"{name}: must lie between {low:g} and {high:g}")
    return value


def guarded(handler: Handler) -> Handler:
    """Wrap a handler so that every error that is known becomes its answer."""

    async def answer(request: Request) -> Response:
        """Answer one request, also where the handler refuses it."""
        try:
            return await handler(request)
        except TooManyError as error:
            return refusal(429, "wait", str(error), {"retry-after": f"{error.wait_s + 0.5:.0f}"})
        except TooLargeError as error:
            return refusal(413, "too-large", str(error), {"connection": "close"})
        except HedgerowError as error:
            return _refused(error)
        except SQLAlchemyError as error:
            _log.error("%s: the database refused: %s", request.url.path, error)
            return refusal(503, "storage", "the server cannot write just now; try again")
        except ClientDisconnect:
            return refusal(400, "bad-request", "the connection ended before the body did")

    return answer


def _refused(error: HedgerowError) -> Response:
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return refusal(status, code, str(error))
    return refusal(400, "bad-request", str(error))


def remote_address(request: Request) -> str:
    """Return the address that a connection comes from."""
    client: Any = request.client
    return str(client.host) if client else "unknown"
