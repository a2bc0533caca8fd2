"""Whether a request may be served at all: who asks, for which host, from which page. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Denial(msgspec.Struct, frozen=True):
    """Why a request is not served: HTTP status, a short code, and a sentence."""

    status: int
    reason: str
    detail: str


def judge_source(headers: Mapping[str, str], port: int) -> Denial | None:
    """Return why the request's origin is refused, or None.

    A page in a browser can reach the loopback: its Origin gives it away, and where it hides behind a name of its own
    that resolves to 127.0.0.1 (DNS rebinding), the Host header does.
    """
    if not _is_ours(headers.get("Host", ""), port):
        return Denial(403, "host", "the Host header must name localhost, 127.0.0.1 or [::1] and this port")
    origin = headers.get("Origin")
    if origin is not None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not _is_loopback(parts.netloc):
            return Denial(403, "origin", "requests from web pages elsewhere are refused")
    return None


def judge_token(headers: Mapping[str, str], token: str) -> Denial | None:
    """Return why the request's bearer token is refused, or None; takes the same time wherever it differs."""
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        return Denial(
            401, "token", "send 'Authorization: Bearer TOKEN' with the token of the agent's api-token file"
        )
    return None


def body_length(headers: Mapping[str, str], lengths: int, limit: int) -> int | Denial:
    """Return the declared length of the body, or why it is refused; ``lengths`` counts the headers that declare one."""
    if headers.get("Transfer-Encoding") is not None:
        return Denial(411, "length", "chunked bodies are not taken; send Content-Length")
    text = headers.get("Content-Length", "").strip()
    if lengths != 1 or not (text.isascii() and text.isdigit()) or len(text) > 12:
        return Denial(411, "length", "send one Content-Length")
    if int(text) > limit:
        return Denial(413, "too-large", f"{text} bytes; at most {limit}")
    return int(text)


def _is_ours(host: str, port: int) -> bool:
    name, separator, given = host.rpartition(":")
    if not separator or host.endswith("]"):
        name, given = host, "80"
    return name.lower() in LOOPBACK_NAMES and given == str(port)


def _is_loopback(netloc: str) -> bool:
    name, separator, given = netloc.rpartition(":")
    if not separator or netloc.endswith("]"):
        name, given = netloc, "80"
    return name.lower() in LOOPBACK_NAMES and given.isdigit()
