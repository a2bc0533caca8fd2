"""What the proxy forwards, and what it refuses. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

MAX_BODY_BYTES = 8 * 1024 * 1024
FORWARDED_PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
)
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
# Hop by hop (RFC 9110, section 7.6.1), or set anew on the other side. The proxy's trainer headers are not for others.
_DROPPED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "hedgerow-activation",
        "hedgerow-job",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def judge(method: str, path: str, host: str | None, length: str | None) -> tuple[HTTPStatus, str] | None:
    """Return why a request is not forwarded, or None if it is.

    The host is checked so that no web page can reach the proxy under a name of its own (DNS rebinding).
    """
    if (host or "").rpartition(":")[0] not in _LOOPBACK_NAMES and (host or "") not in _LOOPBACK_NAMES:
        return HTTPStatus.MISDIRECTED_REQUEST, "this proxy answers to loopback names only"
    if method != "POST" or path not in FORWARDED_PATHS:
        return HTTPStatus.NOT_FOUND, "only Flower's fleet routes of a node are forwarded"
    if length is None or not length.isascii() or not length.isdigit():
        return HTTPStatus.LENGTH_REQUIRED, "the content-length must be declared"
    if len(length) > 12 or int(length) > MAX_BODY_BYTES:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have at most {MAX_BODY_BYTES} bytes"
    return None


def forwarded(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that are handed on, either way."""
    return {name.lower(): value for name, value in headers if name.lower() not in _DROPPED}
