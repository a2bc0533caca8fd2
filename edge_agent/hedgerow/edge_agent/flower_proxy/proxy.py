"""The proxy's sockets: a small loopback HTTPS server, and one client with the device's certificate."""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from hedgerow.edge_agent.flower_proxy import rules
from hedgerow.edge_agent.flower_proxy.keys import loopback_context, write_node_key
from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.shared.errors import TransportError
from hedgerow.shared.identity import SERVER_NAME

LOG = logging.getLogger(__name__)
_PIECE_BYTES = 64 * 1024
_IDLE_S = 60.0


class FlowerProxy:
    """Forwards a stock SuperNode's requests to the device gateway; ``port`` 0 picks a free one.

    ``folder`` (the owner's only) gets the two files that the SuperNode is started with, see ``arguments``.
    """

    def __init__(
        self,
        server_url: str,
        identity: IdentityFiles,
        folder: Path,
        *,
        port: int = 0,
        timeout_s: float = 120.0,
    ) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_node_key(identity.key, folder / "node-key")
        context = loopback_context(folder)
        self._client = httpx.Client(
            base_url=server_url,
            verify=device_context(identity),
            timeout=timeout_s,
            trust_env=False,
            limits=httpx.Limits(max_connections=8),
        )
        try:
            self._server = _Server(("127.0.0.1", port), _handler(self._client), context)
        except (OSError, OverflowError) as error:  # the latter for a number that no port has
            self._client.close()
            raise TransportError(f"cannot listen on 127.0.0.1:{port}: {error}") from error
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, ``HOST:PORT``."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def arguments(self) -> list[str]:
        """The arguments that make ``flower-supernode`` join through this proxy."""
        return [
            "--superlink",
            self.address,
            "--root-certificates",
            str(self._folder / "loopback.pem"),
            "--auth-supernode-private-key",
            str(self._folder / "node-key"),
        ]

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="hedgerow-flower-proxy", daemon=True
        )
        self._thread.start()
        LOG.info("flower proxy on %s", self.address)

    def stop(self, deadline_s: float = 5.0) -> None:
        """Stop accepting, then close; running requests are cut after the deadline."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(deadline_s)
            self._thread = None
        self._server.server_close()
        self._client.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext
    ) -> None:
        super().__init__(address, handler)
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the TLS handshake in the connection's own thread, so that nobody can hold up the others."""
        request.settimeout(_IDLE_S)
        with self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is no event."""
        del request
        LOG.debug("a connection of %s broke off", client_address, exc_info=True)


def _handler(over: httpx.Client) -> type[BaseHTTPRequestHandler]:
    """Return a handler that forwards over a client; the standard library makes one per connection by calling it."""

    class Handler(_Handler):
        client = over

    return Handler


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection of a node: judges each request, and forwards it over ``client``."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    client: httpx.Client

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        LOG.debug(format, *args)

    def _serve(self) -> None:
        length = self.headers.get("content-length")
        self._unread = 0
        refused = rules.judge(self.command, self.path, self.headers.get("host"), length)
        if refused is not None:
            self._refuse(*refused)
            return
        self._unread = int(length or 0)
        try:
            self._forward(self._unread)
        except httpx.HTTPError as error:
            LOG.warning("the server cannot be reached: %s", error)
            self._refuse(HTTPStatus.BAD_GATEWAY, "the server cannot be reached")

    def _forward(self, n_bytes: int) -> None:
        headers = {**rules.forwarded(self.headers.items()), "content-length": str(n_bytes)}
        request = self.client.build_request("POST", self.path, headers=headers, content=self._body(n_bytes))
        request.extensions["sni_hostname"] = SERVER_NAME
        response = self.client.send(request, stream=True)
        try:
            length = response.headers.get("content-length")
            body = None if length is not None else response.read()
            self.send_response(response.status_code)
            for name, value in rules.forwarded(response.headers.items()).items():
                self.send_header(name, value)
            self.send_header("content-length", length if body is None else str(len(body)))
            self.end_headers()
            for piece in response.iter_raw(_PIECE_BYTES) if body is None else (body,):
                self.wfile.write(piece)
        finally:
            response.close()

    def _body(self, n_bytes: int) -> Iterator[bytes]:
        self._unread = n_bytes
        while self._unread:
            piece = self.rfile.read(min(self._unread, _PIECE_BYTES))
            if not piece:
                raise httpx.WriteError("the node closed the connection")
            self._unread -= len(piece)
            yield piece

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        body = json.dumps({"detail": detail}).encode()
        self.close_connection = True
        # Closing with unread bytes resets the connection, and the node would never see this answer.
        while self._unread and (piece := self.rfile.read(min(self._unread, _PIECE_BYTES))):
            self._unread -= len(piece)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)
