"""What the SuperNode is given as files: the device's key as it reads keys, and whom to trust on loopback."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hedgerow.shared.errors import StorageError


def write_node_key(key_file: Path, target: Path) -> None:
    """Write the device's key in OpenSSH's format, the only one that a SuperNode reads, for its owner only.

    Raises StorageError.
    """
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
        _write_private(target, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise StorageError(f"{key_file}: cannot be written as a node key to {target}: {error}") from error


def loopback_context(folder: Path) -> ssl.SSLContext:
    """Return a TLS context for 127.0.0.1 with a fresh key; ``loopback.pem`` in ``folder`` is what to trust.

    Raises StorageError.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key)
    pair = folder / "loopback-pair.pem"
    try:
        (folder / "loopback.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_private(pair, private + certificate.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        pair.unlink()
    except (OSError, ssl.SSLError) as error:
        raise StorageError(
            f"{folder}: the proxy's loopback certificate cannot be written: {error}"
        ) from error
    return context


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hedgerow flower proxy")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    builder = x509.CertificateBuilder(name, name, public, x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=365))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True).add_extension(names, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.sign(key, hashes.SHA256())


def _write_private(target: Path, content: bytes) -> None:
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
