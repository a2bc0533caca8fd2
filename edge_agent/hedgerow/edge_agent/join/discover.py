"""Finds servers on the local network by DNS-SD. What is found is a hint: the token's pin decides whom to trust."""

from __future__ import annotations

import ipaddress
import queue
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from hedgerow.shared.errors import TransportError
from hedgerow.shared.identity import DNS_SD_SERVICE

MAX_CANDIDATES: Final = 32


class Candidate(msgspec.Struct, frozen=True):
    """A server that announces itself; ``pin`` is what it says of its CA, unproven."""

    name: str
    urls: tuple[str, ...]
    pin: str


def find_servers(timeout_s: float, interfaces: Sequence[str] | None = None) -> Iterator[Candidate]:
    """Yield servers as they are found, for ``timeout_s`` or until the caller has enough; at most ``MAX_CANDIDATES``.

    ``interfaces`` are the addresses to listen on, all by default. Raises TransportError if the network does not
    let us ask.
    """
    from zeroconf import ServiceBrowser, ServiceStateChange, Zeroconf

    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    end = time.monotonic() + timeout_s
    try:
        asking = Zeroconf(interfaces=list(interfaces)) if interfaces else Zeroconf()
    except OSError as error:
        raise TransportError(f"cannot look for servers on the local network: {error.strerror}") from error

    # zeroconf passes these by name, in a thread of its own.
    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:  # noqa: ARG001
        if state_change is ServiceStateChange.Added:
            found.put(name)

    try:
        browser = ServiceBrowser(asking, DNS_SD_SERVICE, handlers=[changed])
        for _ in range(MAX_CANDIDATES):
            try:
                name = found.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            info = asking.get_service_info(DNS_SD_SERVICE, name, timeout=2000)
            if info is not None and info.port:
                pin = (info.properties.get(b"spki") or b"").decode("ascii", "replace")
                yield Candidate(name, urls_of(info.parsed_scoped_addresses(), info.port), pin)
        browser.cancel()
    finally:
        asking.close()


def urls_of(addresses: Sequence[str], port: int) -> tuple[str, ...]:
    """Return the addresses as URLs, IPv4 first; link-local IPv6 without its interface cannot be used and is left out."""
    urls: list[tuple[int, str]] = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        if address.version == 6 and address.is_link_local:
            continue
        host = f"[{address}]" if address.version == 6 else str(address)
        urls.append((address.version, f"https://{host}:{port}"))
    return tuple(url for _, url in sorted(urls, key=lambda item: item[0]))
