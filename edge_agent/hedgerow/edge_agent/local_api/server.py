"""The server of the local API: a loopback listener with a bounded number of connections."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from hedgerow.edge_agent.local_api.handler import Handler
from hedgerow.edge_agent.local_api.token import load_or_make_token
from hedgerow.shared.errors import TransportError
from hedgerow.shared.specs import TensorSpec

log = logging.getLogger(__name__)
MAX_CONNECTIONS: Final = 16
_BUSY_BODY: Final = b'{"error":"busy","detail":"too many connections at one time"}'
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)


class LocalApi:
    """Answers programs on this device.

    ``predict`` takes a spec's name and one sample of it (read only), and returns what is encoded as JSON; ``specs`` are
    those it knows; ``status`` returns anything that msgspec encodes. All three are called from several threads.
    Raises TransportError if the port is taken, AuthError or StorageError for the token file.
    """

    def __init__(
        self,
        *,
        token_file: Path,
        predict: Callable[[str, npt.NDArray[Any]], object],
        specs: Callable[[], Mapping[str, TensorSpec]],
        status: Callable[[], object],
        port: int = 0,
    ) -> None:
        self.token = load_or_make_token(token_file)
        self.predict = predict
        self.specs = specs
        self.status = status
        handler = type("BoundHandler", (Handler,), {"backend": self})
        try:
            self._server = _BoundedServer(("127.0.0.1", port), handler)
        except OSError as error:
            raise TransportError(f"local API: port {port} cannot be opened: {error.strerror}") from error
        self.port = int(self._server.server_address[1])
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="hedgerow-local-api", daemon=True)

    @property
    def url(self) -> str:
        """The address for programs on this device."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self, deadline_s: float = 5.0) -> bool:
        """Stop listening, then end the connections; return whether that took less than the deadline."""
        self._stop_writer.close()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        self._server.end_connections()
        self._server.server_close()
        self._stop_reader.close()
        return not self._thread.is_alive()

    def _serve(self) -> None:
        """Accept until stopped; the base class's own loop would wake twice a second for nothing."""
        while True:
            ready, _, _ = select.select([self._server.socket, self._stop_reader], [], [])
            if self._stop_reader in ready:
                return
            self._server.handle_request()


class _BoundedServer(ThreadingHTTPServer):
    """One thread a connection, at most ``MAX_CONNECTIONS``; one more is told to come back."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16
    timeout = 0.1

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        super().__init__(address, handler)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread if there is a place."""
        if not self._places.acquire(blocking=False):
            try:
                request.settimeout(1.0)
                request.sendall(_BUSY)
            except OSError as error:
                log.debug("local API: a client left: %s", error)
            self.shutdown_request(request)
            return
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._open_lock:
                self._open.discard(request)
            self._places.release()

    def end_connections(self) -> None:
        """Cut what is still open."""
        with self._open_lock:
            still_open = list(self._open)
        for connection in still_open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("local API: a connection had ended: %s", error)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Log to the agent's log, not to standard error."""
        log.debug("local API: a connection failed", exc_info=True)
