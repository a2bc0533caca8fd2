"""The TLS that a device speaks to its server: 1.3, the fleet's CA and no other, the device's own certificate."""

from __future__ import annotations

import errno
import ssl
import time
from typing import Final

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.shared.errors import AuthError, HedgerowError, StorageError, TransportError

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of openssl/x509_vfy.h.
_NOT_YET_VALID: Final = 9
_HAS_EXPIRED: Final = 10


class ClockError(TransportError):
    """This device's clock makes the server's certificate invalid; it may be set right, so it is worth another try."""


def device_context(identity: IdentityFiles) -> ssl.SSLContext:
    """Return a context for requests as this device. Pass ``server_hostname=SERVER_NAME`` when wrapping.

    Raises StorageError if the identity's files are missing, damaged or not a pair.
    """
    context = server_only_context(ca_file=str(identity.ca))
    try:
        context.load_cert_chain(identity.certificate, identity.key)
    except (OSError, ssl.SSLError) as error:
        raise StorageError(
            f"{identity.certificate.parent}: the device's identity cannot be used: {error}"
        ) from error
    return context


def server_only_context(*, ca_file: str | None = None, ca_pem: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts one CA and presents no certificate. Raises StorageError if the CA cannot be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=ca_file, cadata=ca_pem)
    except (OSError, ssl.SSLError) as error:
        raise StorageError(f"{ca_file or 'the CA'}: cannot be used as the fleet's CA: {error}") from error
    return context


def explain(error: OSError, address: str) -> HedgerowError:
    """Return the error that says what is wrong with the connection to ``address``, and whom to ask."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, address)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").upper()
        if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "ACCESS" in reason):
            return AuthError(f"{address}: the server refuses this device's certificate ({error.reason})")
        return TransportError(f"{address}: TLS failed: {error.reason or error}")
    if isinstance(error, TimeoutError):
        return TransportError(f"{address}: no answer in time")
    text = error.strerror or (errno.errorcode.get(error.errno) if error.errno else None) or str(error)
    return TransportError(f"{address}: cannot be reached: {text or type(error).__name__}")


def _explain_verification(error: ssl.SSLCertVerificationError, address: str) -> HedgerowError:
    if error.verify_code in (_NOT_YET_VALID, _HAS_EXPIRED):
        what = "not valid yet" if error.verify_code == _NOT_YET_VALID else "no longer valid"
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        return ClockError(
            f"{address}: the server's certificate is {what} by this device's clock ({clock} UTC); is it set right?"
        )
    return AuthError(f"{address}: this is not the server of this fleet: {error.verify_message}")
