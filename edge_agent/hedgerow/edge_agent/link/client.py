"""HTTP requests to the server over one kept connection, on the standard library: an always-on agent pays for imports.

In a process with TLS and msgspec already there, http.client adds about 3.5 MB of proportional memory, httpx about 13 MB.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from hedgerow.edge_agent.link.tls import explain
from hedgerow.edge_agent.link.traffic import Traffic, wire_bytes
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ConfigError, ContentError, HedgerowError, TransportError
from hedgerow.shared.identity import SERVER_NAME
from hedgerow.shared.messages import decode
from hedgerow.shared.unreadable import UNREADABLE

T = TypeVar("T", bound=msgspec.Struct)
CONNECT_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_S: Final = 30.0
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class Answer(msgspec.Struct, frozen=True):
    """What the server answered: an HTTP status and a body within ``MAX_CONTROL_BODY_BYTES``."""

    status: int
    body: bytes

    def decode(self, kind: type[T]) -> T:
        """Return the body as a ``kind`` of message. Raises ContentError."""
        try:
            return decode(self.body, kind)
        except UNREADABLE as error:
            raise ContentError(f"the server's answer is not a {kind.__name__}: {error}") from error


class DeviceClient:
    """Speaks to one server. One thread uses ``request``; ``interrupt`` and ``use`` are for others.

    A request on a kept connection that the server had closed in the meantime is tried once more on a fresh one, so
    requests must be safe to repeat.
    """

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext,
        traffic: Traffic | None = None,
        *,
        server_name: str = SERVER_NAME,
    ) -> None:
        self.host, self.port = split_url(url)
        self.address = f"{self.host}:{self.port}"
        self._context = context
        self._traffic = traffic or Traffic()
        self._server_name = server_name
        self._connection: _Connection | None = None
        self._stopped = threading.Event()
        self._raw: socket.socket | None = None
        self._lock = threading.Lock()

    def get(self, path: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Answer:
        """Fetch ``path``; see ``request``."""
        return self.request("GET", path, None, timeout_s=timeout_s)

    def post(self, path: str, value: object, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Answer:
        """Post ``value`` (a struct) as JSON; see ``request``."""
        return self.request("POST", path, msgspec.json.encode(value), timeout_s=timeout_s)

    def request(self, method: str, path: str, body: bytes | None, *, timeout_s: float) -> Answer:
        """Return the server's answer, if its status is below 400.

        Raises AuthError (401, 403, or a certificate that either side refuses), ContentError (other 4xx),
        TransportError (unreachable, cut off, too slow, 408, 425, 429, 5xx), ClockError (this device's clock is off).
        """
        kept = self._connection is not None
        try:
            try:
                answer = self._exchange(method, path, body, timeout_s)
            except (http.client.BadStatusLine, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                self.close()
                if not kept or self._stopped.is_set():
                    raise
                answer = self._exchange(method, path, body, timeout_s)
        except OSError as error:
            self.close()
            raise explain(error, self.address) from error
        except (http.client.HTTPException, ValueError) as error:
            self.close()
            raise TransportError(f"{self.address}: broke off: {type(error).__name__}") from error
        if answer.status >= 400:
            raise _refusal(answer, self.address)
        return answer

    def use(self, context: ssl.SSLContext) -> None:
        """Make the next connection with another identity; the present one ends with its request."""
        with self._lock:
            self._context = context
            connection = self._connection
        if connection is not None:
            connection.outdated = True

    def interrupt(self) -> None:
        """End a request that is under way, from another thread, and refuse further ones."""
        self._stopped.set()
        with self._lock:
            if self._raw is not None:
                try:
                    self._raw.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # it had ended already

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        with self._lock:
            if self._raw is not None:
                self._raw.close()
                self._raw = None
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Answer:
        connection = self._connected()
        sock = connection.sock
        sock.settimeout(timeout_s)
        try:
            headers = {} if body is None else {"content-type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read(limits.MAX_CONTROL_BODY_BYTES + 1)
        finally:
            connection.count(self._traffic, self._raw)
        if len(data) > limits.MAX_CONTROL_BODY_BYTES:
            self.close()
            raise ContentError(
                f"{self.address}: the answer is larger than {limits.MAX_CONTROL_BODY_BYTES} bytes"
            )
        if response.length:
            self.close()
            raise TransportError(f"{self.address}: broke off after {len(data)} bytes of its answer")
        if response.will_close or connection.outdated:
            self.close()
        return Answer(response.status, data)

    def _connected(self) -> _Connection:
        if self._stopped.is_set():
            raise ConnectionAbortedError("the link is being shut")
        if self._connection is not None and self._connection.outdated:
            self.close()
        if self._connection is None:
            context = self._context
            connection = _Connection(self.host, self.port, context, self._server_name)
            connection.connect(self._keep_raw)
            with self._lock:
                connection.outdated = context is not self._context
                self._connection = connection
        return self._connection

    def _keep_raw(self, raw: socket.socket) -> None:
        # A second descriptor of the same connection: shutting it down wakes a thread that reads through TLS,
        # without touching the TLS object that the thread is using.
        with self._lock:
            self._raw = socket.socket(fileno=os.dup(raw.fileno()))
        if self._stopped.is_set():
            raise ConnectionAbortedError("the link is being shut")


class _Connection(http.client.HTTPConnection):
    """One TLS connection whose bytes are counted."""

    sock: ssl.SSLSocket

    def __init__(self, host: str, port: int, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=CONNECT_TIMEOUT_S)
        self._tls = context
        self._server_name = server_name
        self._counted = (0, 0)
        self.outdated = False

    def connect(self, opened: Callable[[socket.socket], None] = lambda _: None) -> None:
        """Open TCP, tell ``opened``, then shake hands."""
        raw = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT_S)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE:
                if hasattr(socket, name):
                    raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            opened(raw)
            self.sock = self._tls.wrap_socket(raw, server_hostname=self._server_name)
        except BaseException:
            raw.close()
            raise

    def count(self, traffic: Traffic, raw: socket.socket | None) -> None:
        """Add to ``traffic`` what went over the wire since the last call; ``raw`` is a descriptor that is still open."""
        now = wire_bytes(raw) if raw is not None else None
        if now is not None:
            traffic.add(max(0, now[0] - self._counted[0]), max(0, now[1] - self._counted[1]))
            self._counted = now


def split_url(url: str) -> tuple[str, int]:
    """Return host and port of ``https://host[:port]``. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise ConfigError(f"{url[:200]!r} is not an address: {error}") from error
    if parts.scheme != "https" or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise ConfigError(f"{url[:200]!r} is not an address of the form https://HOST:PORT")
    return host, port


def _refusal(answer: Answer, address: str) -> HedgerowError:
    try:
        said = msgspec.json.decode(answer.body, type=dict[str, str])
    except UNREADABLE:
        said = {}
    reason = said.get("detail") or said.get("error") or f"HTTP status {answer.status}"
    text = f"{address}: {reason[:500]}"
    if answer.status in (401, 403):
        return AuthError(text)
    if answer.status in (408, 425, 429) or answer.status >= 500:
        return TransportError(text)
    return ContentError(text)
