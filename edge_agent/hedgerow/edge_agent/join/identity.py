"""The device's own key, its signing request, and its identity on disk, one generation in one folder.

A generation is written whole and then made the present one by switching a symbolic link, so that key and certificate
always belong together, whenever the power fails.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.renewal import IdentityFacts
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.files import point_to, write_atomically

KEPT_GENERATIONS: Final = 2


def make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key kept at ``path`` (owner only): the one that is there from a try before, or a fresh one.

    The key is on disk before anything is asked of the server, so that a lost answer can be asked for again.
    """
    try:
        found = load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1):
            return found
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        pass  # none, or not a usable one: it is replaced
    key = ec.generate_private_key(ec.SECP256R1())
    write_atomically(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def signing_request(key: ec.EllipticCurvePrivateKey, device: str) -> str:
    """Return a PKCS#10 request for ``device`` in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def check_certificate(
    pem: str, ca_pem: str, key: ec.EllipticCurvePrivateKey, device: str
) -> x509.Certificate:
    """Return the certificate that the server sent if it is for this key and device and of that CA.

    Raises ContentError otherwise: an identity that cannot work is never installed.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
        names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        public = certificate.public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ContentError(f"the certificate from the server is not one of its CA: {error}") from error
    if public != key.public_key() or names != [device]:
        raise ContentError("the certificate from the server is not for this device's key and name")
    return certificate


def install_identity(
    home: AgentHome, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, ca_pem: str, device: str
) -> None:
    """Make this the device's identity, and remove generations before the last. Raises StorageError."""
    folder = home.identities / f"{certificate.serial_number:x}"
    write_atomically(
        folder / "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600
    )
    write_atomically(folder / "cert.pem", certificate.public_bytes(Encoding.PEM))
    write_atomically(folder / "ca.pem", ca_pem.encode())
    facts = IdentityFacts(
        device,
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
    write_atomically(folder / "facts.json", msgspec.json.encode(facts))
    point_to(home.identity, folder)
    _remove_old(home, keep=folder)


def _remove_old(home: AgentHome, keep: Path) -> None:
    try:
        others = [folder for folder in home.identities.iterdir() if folder.is_dir() and folder != keep]
        others.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in others[KEPT_GENERATIONS - 1 :]:
            shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(
            f"{home.identities}: old identities cannot be removed: {error.strerror}"
        ) from error
