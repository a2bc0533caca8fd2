"""Fetches the fleet's CA from a server that is not trusted yet, and believes it only if it is the one in the token.

Nothing secret is sent here: one GET over TLS whose certificate is not checked. The pin decides.
"""

from __future__ import annotations

import hmac
import http.client
import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hedgerow.edge_agent.link.client import split_url
from hedgerow.edge_agent.link.tls import explain
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ContentError, TransportError
from hedgerow.shared.identity import spki_pin

_MAX_CA_BYTES = 16 * limits.KIB


def fetch_ca(url: str, pin: str, *, timeout_s: float = 10.0) -> str:
    """Return the CA of the server at ``url`` in PEM, proven to be the one of ``pin``.

    Raises TransportError if the server cannot be reached, ContentError if it answers with something else than a CA,
    AuthError if it is another fleet's: the server is not the token's, or someone is in between.
    """
    pem = _download(url, timeout_s)
    if not hmac.compare_digest(_pin_of(pem), pin):
        raise AuthError(
            f"{url}: this server is not the one that made the token (its CA has another key); nothing was sent"
        )
    return pem


def _download(url: str, timeout_s: float) -> str:
    host, port = split_url(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", "/v1/device/ca")
        response = connection.getresponse()
        data = response.read(_MAX_CA_BYTES + 1)
    except OSError as error:
        raise explain(error, f"{host}:{port}") from error
    except http.client.HTTPException as error:
        raise TransportError(
            f"{host}:{port}: does not speak HTTP over TLS as a Hedgerow server does"
        ) from error
    finally:
        connection.close()
    if response.status != 200 or len(data) > _MAX_CA_BYTES:
        raise ContentError(f"{host}:{port}: is no Hedgerow server (no CA at /v1/device/ca)")
    return data.decode("ascii", "replace")


def _pin_of(pem: str) -> str:
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        keys = [certificate.public_key() for certificate in certificates]
        spki = [key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys]
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ContentError("the server's answer holds no certificate") from error
    if len(spki) != 1:
        raise ContentError("the server's answer holds more than one certificate; expected its CA alone")
    return spki_pin(spki[0])
