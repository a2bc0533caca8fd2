"""How much a device's TLS connection takes of the server's memory: little, for a fleet holds thousands of quiet ones."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import Final

from hedgerow.shared import limits

READ_BYTES: Final = 32 * limits.KIB
WRITE_BYTES: Final = 64 * limits.KIB


def bound_reads() -> None:
    """Have the TLS connections that this process makes from now on read at most ``READ_BYTES`` at once.

    asyncio would set 256 KiB aside for each connection as long as it lives, half a gigabyte for a thousand devices of two,
    and make room for as much at each read, though a TLS record has at most 16 KiB (RFC 8446, section 5.1).
    """
    sslproto.SSLProtocol.max_size = READ_BYTES


def bound_writes(transport: asyncio.Transport) -> None:
    """Have whoever writes to ``transport`` wait once ``WRITE_BYTES`` are not sent yet.

    asyncio's bound for TLS is 512 KiB, and what the TLS library's buffer has grown to, a connection keeps.
    """
    transport.set_write_buffer_limits(high=WRITE_BYTES)
