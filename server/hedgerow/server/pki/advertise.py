"""Announces the server on the local network by DNS-SD, so that a device can join without being told an address."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from hedgerow.shared.errors import TransportError
from hedgerow.shared.identity import DNS_SD_SERVICE


class Advertisement:
    """The announcement of one server; a hint for devices, who trust nothing of it but try the pin in their token."""

    def __init__(
        self, server_id: str, ca_pin: str, port: int, interfaces: Sequence[str] | None = None
    ) -> None:
        """Describe the server. ``interfaces`` are the addresses to announce and to announce on; all by default."""
        self._server_id = server_id
        self._ca_pin = ca_pin
        self._port = port
        self._interfaces = list(interfaces) if interfaces else None
        self._closing: object | None = None

    async def start(self) -> None:
        """Announce. Raises TransportError if the network does not let us: devices then need the URL."""
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

        info = AsyncServiceInfo(
            DNS_SD_SERVICE,
            f"hedgerow-{self._server_id}.{DNS_SD_SERVICE}",
            port=self._port,
            properties={
                "v": "1",
                "id": self._server_id,
                "api": "/v1/device",
                "tls": "1",
                "spki": self._ca_pin,
            },
            server=f"hedgerow-{self._server_id}.local.",
            parsed_addresses=self._interfaces or local_addresses(),
        )
        try:
            announcing = AsyncZeroconf(interfaces=self._interfaces) if self._interfaces else AsyncZeroconf()
        except OSError as error:
            raise TransportError(f"cannot announce on the local network: {error}") from error
        try:
            await announcing.async_register_service(info, allow_name_change=True)
        except (OSError, Error) as error:
            await announcing.async_close()
            raise TransportError(f"cannot announce on the local network: {error!r}") from error
        self._closing = announcing

    async def stop(self) -> None:
        """Take the announcement back."""
        from zeroconf.asyncio import AsyncZeroconf

        announcing, self._closing = self._closing, None
        if isinstance(announcing, AsyncZeroconf):
            await announcing.async_unregister_all_services()
            await announcing.async_close()


def local_addresses() -> list[str]:
    """Return the IPv4 addresses under which this machine may be reached; loopback if it has no other."""
    from ifaddr import get_adapters

    addresses = [str(ip.ip) for adapter in get_adapters() for ip in adapter.ips if ip.is_IPv4]
    outward = [address for address in addresses if not address.startswith("127.")]
    return outward or addresses or [socket.gethostbyname("localhost")]
