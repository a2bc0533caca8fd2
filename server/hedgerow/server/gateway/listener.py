"""The TLS listener: uvicorn with client certificates asked for, the peer's certificate put into each request's scope.

Stops in steps: no new connections, long polls end, running requests get until the deadline, then connections are cut.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence

import msgspec
import uvicorn
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from hedgerow.server.gateway.buffers import bound_reads, bound_writes
from hedgerow.server.gateway.front import Devices, Front
from hedgerow.server.gateway.paths import Mount
from hedgerow.server.serving import EmbeddedServer
from hedgerow.shared.errors import TransportError

LOG = logging.getLogger(__name__)


class GatewayConfig(msgspec.Struct, frozen=True):
    """Where the gateway listens (port 0 picks one), and how much it takes on."""

    host: str = "127.0.0.1"
    port: int = 0
    max_connections: int = 4096
    max_requests_per_device: int = 16
    body_timeout_s: float = 20.0
    keep_alive_s: int = 90
    drain_s: int = 10


class _WithPeer:
    """The app of one connection: adds the peer's certificate to each request."""

    def __init__(self, app: ASGIApp, certificate: bytes | None) -> None:
        self._app = app
        self._certificate = certificate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["hedgerow.peer_cert"] = self._certificate
        await self._app(scope, receive, send)


class _PeerProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol, with the peer's certificate read once per connection."""

    app: ASGIApp

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Read the certificate that the TLS handshake verified; bound what is sent and not yet gone."""
        super().connection_made(transport)
        bound_writes(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app = _WithPeer(self.app, certificate)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the last request, which refers back to this connection.

        Otherwise its TLS buffers would wait for the garbage collector.
        """
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.cycle = None


class Gateway:
    """Serves ``routes`` (Starlette) and ``mounts`` (ASGI apps by prefix) to devices.

    ``context`` must ask for client certificates without requiring one (``ssl.CERT_OPTIONAL``); ``on_drain`` is called
    when the gateway stops, to end long polls.
    """

    def __init__(
        self,
        config: GatewayConfig,
        context: ssl.SSLContext,
        devices: Devices,
        *,
        routes: Sequence[Route] = (),
        mounts: Sequence[Mount] = (),
        on_drain: Callable[[], None] | None = None,
    ) -> None:
        self._config = config
        self._context = context
        self._on_drain = on_drain
        everything = [*mounts, Mount("/v1/device/", Router(routes=list(routes)))]
        self.front = Front(
            devices,
            everything,
            max_requests_per_device=config.max_requests_per_device,
            body_timeout_s=config.body_timeout_s,
        )
        self._server: EmbeddedServer | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        if self._server is None:
            raise TransportError("the gateway is not running")
        return self._port

    async def start(self) -> None:
        """Listen. Raises TransportError if the address is taken."""
        bound_reads()
        uvicorn_config = self._uvicorn_config()
        uvicorn_config.load()
        uvicorn_config.ssl = self._context
        server = EmbeddedServer(uvicorn_config, self._on_drain)
        self._port = await server.listen("device gateway")
        self._server = server
        LOG.info("device gateway on %s:%d", self._config.host, self.port)

    async def stop(self) -> None:
        """Stop accepting, end long polls, wait for running requests up to the deadline, then cut."""
        if self._server is None:
            return
        LOG.info("device gateway: draining")
        server, self._server = self._server, None
        await server.close()
        LOG.info("device gateway: stopped")

    def _uvicorn_config(self) -> uvicorn.Config:
        config = self._config
        return uvicorn.Config(
            self.front,
            host=config.host,
            port=config.port,
            http=_PeerProtocol,
            ws="none",
            lifespan="off",
            limit_concurrency=config.max_connections,
            timeout_keep_alive=config.keep_alive_s,
            timeout_graceful_shutdown=config.drain_s,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
