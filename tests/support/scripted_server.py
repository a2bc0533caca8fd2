"""A TLS server of a fleet's CA whose answers a test scripts, and which writes down what it was asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from hedgerow.server.pki.authority import CertificateAuthority


class Asked(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Said(NamedTuple):
    """One answer: status, body and headers beside the length; ``chunks`` sends it chunked, ``cut`` only so many bytes of it."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    chunks: bool = False
    cut: int | None = None


Script = Callable[[Asked], Said]


class ScriptedServer:
    """Answers as ``script`` says, asks for a certificate of the fleet's, and keeps ``asked``; a context manager."""

    def __init__(self, authority: CertificateAuthority, script: Script) -> None:
        self.asked: list[Asked] = []
        self._changed = threading.Condition()
        pair = authority.server_pair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(cadata=authority.pem)
        context.verify_mode = ssl.CERT_REQUIRED
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                outer._note(asked)
                _answer(self, script(asked))

            do_POST = do_GET  # noqa: N815  the base class looks for this name

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def finish_request(self, request: Any, client_address: Any) -> None:
                with context.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                return

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def wait(self, enough: Callable[[list[Asked]], bool], within_s: float = 20.0) -> list[Asked]:
        """Return what was asked once ``enough`` says so. Raises AssertionError if it never does."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.asked), within_s), self.asked
            return list(self.asked)

    def _note(self, asked: Asked) -> None:
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()


def _answer(handler: BaseHTTPRequestHandler, said: Said) -> None:
    handler.send_response(said.status)
    for name, value in said.headers:
        handler.send_header(name, value)
    if said.chunks:
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        half = len(said.body) // 2
        pieces = [piece for piece in (said.body[:half], said.body[half:]) if piece]
        for piece in [*pieces, b""]:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        return
    handler.send_header("content-length", str(len(said.body)))
    handler.end_headers()
    handler.wfile.write(said.body if said.cut is None else said.body[: said.cut])
    if said.cut is not None:
        handler.close_connection = True
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
