"""Judges certificate signing requests: whose key is it, and may that name have it? Pure."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from hedgerow.shared.errors import ContentError


def key_of_request(csr_pem: str, device: str) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key of a PKCS#10 request whose subject is ``device`` and which that key has signed.

    Extensions and every other part of the subject are ignored: the certificate's subject is built anew.
    Raises ContentError if it is not such a request.
    """
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        signed = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ContentError("csr_pem: not a PKCS#10 certificate request in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ContentError("csr_pem: the key must be on the curve P-256")
    if not signed:
        raise ContentError("csr_pem: not signed by its own key")
    if [name.value for name in names] != [device]:
        raise ContentError(f"csr_pem: the common name must be {device!r}, once")
    return key


def spki_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
