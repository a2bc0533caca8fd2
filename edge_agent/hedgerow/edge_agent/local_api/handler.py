"""One connection of the local API: reads requests within a deadline and answers in JSON."""

from __future__ import annotations

import io
import logging
import socket
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.local_api import decode, guard
from hedgerow.edge_agent.local_api.guard import Denial
from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError, HedgerowError
from hedgerow.shared.specs import TensorSpec

log = logging.getLogger(__name__)
REQUEST_S: Final = 10.0
IDLE_S: Final = 30.0
SPEC_HEADER: Final = "X-Hedgerow-Spec"
_RAW: Final = "application/octet-stream"


class Backend(Protocol):
    """What requests are answered with."""

    token: str
    port: int
    predict: Callable[[str, npt.NDArray[Any]], object]
    specs: Callable[[], Mapping[str, TensorSpec]]
    status: Callable[[], object]


class DeadlineReader(io.RawIOBase):
    """Reads a socket until a point in time, so that a client that drips bytes cannot hold a thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = time.monotonic() + REQUEST_S

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``. Raises TimeoutError past the deadline."""
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Serves ``POST /v1/predict``, ``GET /v1/health`` and ``GET /v1/status``."""

    protocol_version = "HTTP/1.1"
    server_version = "hedgerow"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1
    backend: Backend

    def setup(self) -> None:
        """Read through a deadline instead of the plain socket."""
        super().setup()
        self._reader = DeadlineReader(self.connection)
        self._buffered = io.BufferedReader(self._reader, 65536)
        self.rfile = self._buffered

    def handle_one_request(self) -> None:
        """Serve one request; waiting for it is bounded, and so is reading it from its first byte on."""
        self._reader.deadline = time.monotonic() + IDLE_S
        try:
            started = self._buffered.peek(1)
        except (TimeoutError, ConnectionError):
            started = b""
        if not started:
            self.close_connection = True
            return
        self._reader.deadline = time.monotonic() + REQUEST_S
        self.connection.settimeout(REQUEST_S)
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        """Serve health to every local program, status to those with the token."""
        if self.path == "/v1/health":
            self._serve(lambda: {"status": "ok"}, token=False)
        elif self.path == "/v1/status":
            self._serve(self.backend.status)
        else:
            self._deny(guard.judge_source(self._headers(), self.backend.port) or _nowhere(self.path))

    def do_POST(self) -> None:
        """Serve a prediction."""
        if self.path == "/v1/predict":
            self._serve(self._predict)
        else:
            self._deny(guard.judge_source(self._headers(), self.backend.port) or _nowhere(self.path))

    def _serve(self, answer: Callable[[], object], *, token: bool = True) -> None:
        headers = self._headers()
        denial = guard.judge_source(headers, self.backend.port)
        if denial is None and token:
            denial = guard.judge_token(headers, self.backend.token)
        if denial is not None:
            self._deny(denial)
            return
        try:
            result = answer()
        except TimeoutError:
            self._deny(Denial(408, "timeout", "the body did not arrive in time"))
        except ContentError as error:
            self._deny(Denial(400, "input", str(error)))
        except HedgerowError as error:
            self._deny(Denial(503, "unavailable", str(error)))
        except Exception:  # the boundary to the inference part: one request fails, the API goes on
            log.exception("a request of the local API failed")
            self._deny(Denial(500, "internal", "the request failed; the agent's log says why"))
        else:
            if isinstance(result, Denial):
                self._deny(result)
            else:
                self._answer(200, result)

    def _predict(self) -> object:
        raw = self.headers.get_content_type() == _RAW
        limit = limits.MAX_PREDICT_BODY_BYTES if raw else decode.MAX_JSON_BYTES
        lengths = len(self.headers.get_all("Content-Length", []))
        length = guard.body_length(self._headers(), lengths, limit)
        if isinstance(length, Denial):
            return length
        body = self.rfile.read(length)
        if len(body) != length:
            raise ContentError(f"the body ended after {len(body)} of {length} bytes")
        specs = self.backend.specs()
        try:
            if raw:
                spec, array = decode.decode_raw(body, self.headers.get(SPEC_HEADER, ""), specs)
            else:
                spec, array = decode.decode_json(body, specs)
        except KeyError as error:
            known = ", ".join(sorted(specs)) or "none"
            return Denial(404, "spec", f"no spec {error.args[0]!r}; there are {known}"[:500])
        return self.backend.predict(spec.name, array)

    def _headers(self) -> dict[str, str]:
        """Return the headers; one sent twice is joined, and then passes for none of the values that are allowed."""
        joined: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.title()
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
        return joined

    def _deny(self, denial: Denial) -> None:
        # What is left of a refused body would be read as the next request.
        self.close_connection = True
        self._answer(denial.status, {"error": denial.reason, "detail": denial.detail})

    def _answer(self, status: int, value: object) -> None:
        body = msgspec.json.encode(value, enc_hook=_plain)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def handle_expect_100(self) -> bool:
        """Tell the client to go on at once; answers are buffered otherwise."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in JSON where the base class would in HTML."""
        self._deny(Denial(code, "request", (explain or message or "not a request")[:200]))

    def log_message(self, format: str, *args: Any) -> None:
        """Log to the agent's log, not to standard error."""
        log.debug("local API: " + format, *args)


def _nowhere(path: str) -> Denial:
    return Denial(404, "path", f"nothing at {path[:100]!r}; there are /v1/predict, /v1/health, /v1/status")


def _plain(value: object) -> object:
    """Return NumPy values as plain ones."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} in an answer")
