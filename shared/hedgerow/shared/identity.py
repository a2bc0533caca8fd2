"""Who is who in a fleet: device names, the name in their certificates, the pin of a fleet's CA.

A device's name is the common name of its certificate; the same name stands in a URI of the certificate's subject
alternative names. A fleet's server proves itself under one fixed name, whatever address it is reached at, so that a
server found on the local network, or moved to another address, is verified as strictly as one given by URL.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from hedgerow.shared.errors import ContentError

DEVICE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
RESERVED_NAMES: Final = frozenset(
    {
        "admin",
        "all",
        "broker",
        "ca",
        "hedgerow",
        "hedgerow-server",
        "localhost",
        "none",
        "operator",
        "root",
        "server",
    }
)
SERVER_NAME: Final = "hedgerow-server"
DNS_SD_SERVICE: Final = "_hedgerow._tcp.local."
_URI_PREFIX: Final = "hedgerow://device/"


def check_device_name(name: str) -> str:
    """Return ``name`` if a device may be called so.

    Raises ContentError if it is not 1 to 63 of ``a-z``, ``0-9`` and ``-`` (not first), or is reserved.
    """
    if not DEVICE_NAME.fullmatch(name):
        raise ContentError(
            f"device name {name[:80]!r} is not 1 to 63 lower-case letters, digits or hyphens, starting without a hyphen"
        )
    if name in RESERVED_NAMES:
        raise ContentError(f"device name {name!r} is reserved; take another")
    return name


def device_uri(device: str) -> str:
    """Return the URI that names ``device`` in its certificate."""
    return f"{_URI_PREFIX}{device}"


def spki_pin(spki_der: bytes) -> str:
    """Return the pin of a public key: SHA-256 in hex of its DER SubjectPublicKeyInfo (RFC 7469, section 2.4)."""
    return hashlib.sha256(spki_der).hexdigest()
