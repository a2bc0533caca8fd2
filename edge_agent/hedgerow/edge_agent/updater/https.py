"""The updater's one way out: HTTPS to the fleet's server, its certificate checked, ours shown. No proxies, no redirects."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.shared.errors import TransportError

CONNECT_S = 10.0
READ_GAP_S = 30.0
CHUNK_BYTES = 64 * 1024


class Answer:
    """An open response: status, headers, and its body in chunks as the bytes are on the wire."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        """Yield the body. Raises TransportError when the connection breaks or the body is cut short."""
        try:
            # Undecoded: a compressed body could be a thousand times what was signed.
            yield from self._response.stream(CHUNK_BYTES, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise TransportError(f"the connection broke: {error}") from error


class Https:
    """A connection pool to one server, for one thread."""

    def __init__(
        self, identity: IdentityFiles, *, connect_s: float = CONNECT_S, read_gap_s: float = READ_GAP_S
    ) -> None:
        try:
            context = ssl.create_default_context(cafile=str(identity.ca))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(identity.certificate, identity.key)
        except OSError as error:  # ssl.SSLError is one
            raise UpdateError(
                "usage", f"{identity.key.parent}: no usable identity; join the fleet first: {error}"
            ) from error
        timeout = urllib3.Timeout(connect=connect_s, read=read_gap_s)
        self._pool = urllib3.PoolManager(num_pools=1, ssl_context=context, retries=False, timeout=timeout)

    @contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[Answer]:
        """Open ``url`` and yield the answer, whatever its status. Raises TransportError if there is none."""
        try:
            response = self._pool.request(
                "GET", url, headers=headers or {}, preload_content=False, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise TransportError(f"cannot reach {url}: {error}") from error
        try:
            yield Answer(response)
        finally:
            # An answer that was not read to its end cannot be reused: close it rather than drain it.
            response.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()
