"""One persistent HTTPS connection with the device's certificate, for requests one after another.

Large uploads are sent only after the server's ``100 Continue``: a device that must wait for an upload slot keeps its
bytes to itself. Bodies are read and written without joining them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import h11
import msgspec

from hedgerow.edge_agent.link.tls import explain
from hedgerow.shared.errors import ConfigError, TransportError
from hedgerow.shared.identity import SERVER_NAME

_CONTINUE_FROM_BYTES = 256 * 1024
_RECEIVE_BYTES = 256 * 1024
_MAX_ERROR_BYTES = 64 * 1024


Bytes = bytes | bytearray | memoryview


class Answer(msgspec.Struct, frozen=True):
    """A complete response; ``date`` is the server's clock as it sent it, empty if it sent none."""

    status: int
    body: bytearray
    date: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server is."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read ``https://host[:port]``. Raises ConfigError for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ConfigError(f"server url {url!r}: expected https://HOST:PORT")
        return cls(parts.hostname, parts.port or 443)


class Connection:
    """Opens when first used and again after any failure; a failed request is never repeated by itself."""

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext, *, connect_timeout_s: float = 10.0
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._connect_timeout_s = connect_timeout_s
        self._socket: ssl.SSLSocket | None = None
        self._session: ssl.SSLSession | None = None

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Sequence[Bytes] = (),
        *,
        timeout_s: float,
        max_answer_bytes: int = _MAX_ERROR_BYTES,
    ) -> Answer:
        """Send one request and return the response.

        Raises TransportError if the connection broke or the answer is not one, AuthError if TLS refused the server
        or the server refused our certificate.
        """
        try:
            return self._exchange(method, target, headers, body, timeout_s, max_answer_bytes)
        except OSError as error:
            self.close()
            raise explain(error, f"{self._endpoint.host}:{self._endpoint.port}") from error
        except h11.ProtocolError as error:
            self.close()
            raise TransportError(f"{self._endpoint.host}: the answer is not HTTP: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close; the next request opens anew, resuming the TLS session."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def interrupt(self) -> None:
        """Break a request off that another thread is waiting in."""
        connected = self._socket
        if connected is not None:
            try:
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def _exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Sequence[Bytes],
        timeout_s: float,
        max_answer_bytes: int,
    ) -> Answer:
        connected = self._connected()
        connected.settimeout(timeout_s)
        n_bytes = sum(memoryview(part).nbytes for part in body)
        wait = n_bytes >= _CONTINUE_FROM_BYTES
        fields = [("host", f"{self._endpoint.host}:{self._endpoint.port}"), *headers.items()]
        if method == "POST":
            fields.append(("content-length", str(n_bytes)))
        if wait:
            fields.append(("expect", "100-continue"))
        protocol = h11.Connection(our_role=h11.CLIENT)
        head = protocol.send(h11.Request(method=method, target=target, headers=fields)) or b""
        if not wait:
            connected.sendall(b"".join([head, *body]))
            return self._finish(protocol, self._response(protocol, connected), max_answer_bytes)
        connected.sendall(head)
        first = self._response(protocol, connected, take_continue=True)
        if isinstance(first, h11.Response):
            answer = self._finish(protocol, first, max_answer_bytes)
            self.close()
            return answer
        for part in body:
            connected.sendall(part)
        return self._finish(protocol, self._response(protocol, connected), max_answer_bytes)

    def _response(
        self, protocol: h11.Connection, connected: ssl.SSLSocket, *, take_continue: bool = False
    ) -> h11.Response | h11.InformationalResponse:
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.Response) or (
                take_continue and isinstance(event, h11.InformationalResponse)
            ):
                return event
            if event is h11.NEED_DATA:
                protocol.receive_data(connected.recv(_RECEIVE_BYTES))
            elif isinstance(event, h11.ConnectionClosed):
                raise TransportError("the server closed the connection")

    def _finish(
        self,
        protocol: h11.Connection,
        response: h11.Response | h11.InformationalResponse,
        max_answer_bytes: int,
    ) -> Answer:
        fields = {bytes(name): bytes(value) for name, value in response.headers}
        length = fields.get(b"content-length", b"0" if response.status_code == 204 else b"")
        if not length.isdigit():
            raise TransportError("the server's answer has no length")
        n_bytes = int(length)
        if n_bytes > max_answer_bytes:
            raise TransportError(f"the server's answer of {n_bytes} bytes is larger than {max_answer_bytes}")
        body = bytearray(n_bytes)
        early = protocol.trailing_data[0]
        body[: len(early)] = early
        view, have = memoryview(body), len(early)
        connected = self._socket
        while have < n_bytes and connected is not None:
            got = connected.recv_into(view[have:])
            if not got:
                raise TransportError("the server closed the connection inside an answer")
            have += got
        if connected is not None:
            self._session = connected.session
        if fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return Answer(response.status_code, body, fields.get(b"date", b"").decode("ascii", "replace"))

    def _connected(self) -> ssl.SSLSocket:
        if self._socket is None:
            plain = socket.create_connection(
                (self._endpoint.host, self._endpoint.port), timeout=self._connect_timeout_s
            )
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._socket = self._context.wrap_socket(
                    plain, server_hostname=SERVER_NAME, session=self._session
                )
            except BaseException:
                plain.close()
                raise
        return self._socket
