"""Counts the bytes that go over the link, TLS included where the kernel tells."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Final

# struct tcp_info of linux/tcp.h: u64 tcpi_bytes_acked at 120, tcpi_bytes_received at 128 (since Linux 4.1).
_TCP_INFO_BYTES: Final = struct.Struct("=120xQQ")


class Traffic:
    """Totals of bytes up and down; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._up = 0
        self._down = 0

    def add(self, up: int, down: int) -> None:
        """Count bytes sent and received."""
        with self._lock:
            self._up += up
            self._down += down

    def totals(self) -> tuple[int, int]:
        """Return the bytes sent and received so far."""
        with self._lock:
            return self._up, self._down


def wire_bytes(connected: socket.socket) -> tuple[int, int] | None:
    """Return the payload bytes acknowledged and received on a TCP connection; None where the kernel does not tell."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_BYTES.size)
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES.size:
        return None
    up, down = _TCP_INFO_BYTES.unpack(info)
    return up, down
