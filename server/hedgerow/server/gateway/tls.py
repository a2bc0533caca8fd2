"""The TLS that devices meet: 1.3 only, client certificates asked for and, where given, of the fleet's CA."""

from __future__ import annotations

import ssl
from pathlib import Path

from hedgerow.shared.errors import StorageError


def gateway_context(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """Return the gateway's TLS context. A client may come without a certificate (to join); a foreign or expired one
    ends the handshake.

    Raises StorageError if a file is missing, damaged, or the key is not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cafile=client_ca)
    except (OSError, ssl.SSLError) as error:
        raise StorageError(f"the gateway's certificate cannot be used ({certificate}): {error}") from error
    return context
