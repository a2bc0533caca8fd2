"""The certificate authority on disk: ``ca.key.pem`` (owner only), ``ca.pem``, the server's pair, the revocation list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from hedgerow.server.pki.certificates import SERVER_LIFE, Issuer, build_ca, new_key
from hedgerow.shared.errors import ConfigError, StorageError
from hedgerow.shared.files import write_atomically
from hedgerow.shared.identity import SERVER_NAME, spki_pin

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")


class PemPair(msgspec.Struct, frozen=True):
    """Where a private key and its certificate lie, for those that open them by path (ssl, brokers)."""

    key: Path
    certificate: Path


class CertificateAuthority:
    """Signs the fleet's certificates. Make one with ``create`` (once, by ``server init``) or ``load``."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        self.folder = folder
        self.issuer = issuer
        self.certificate = issuer.certificate
        public = self.certificate.public_key()
        self.pin = spki_pin(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        self.server_id = self.pin[:16]

    @classmethod
    def create(
        cls, folder: Path, *, name: str = "Hedgerow fleet CA", now: datetime | None = None
    ) -> CertificateAuthority:
        """Make a new authority in ``folder``. Raises ConfigError if there is one, StorageError if the disk refuses."""
        if (folder / "ca.key.pem").exists():
            raise ConfigError(f"{folder}: there is a certificate authority already; it is not overwritten")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = new_key()
        certificate = build_ca(key, name, now or datetime.now(UTC))
        write_atomically(folder / "ca.pem", certificate.public_bytes(Encoding.PEM))
        write_atomically(folder / "ca.key.pem", _key_pem(key), 0o600)
        authority = cls(folder, Issuer(key, certificate))
        authority.write_revocation_list((), now)
        return authority

    @classmethod
    def load(cls, folder: Path) -> CertificateAuthority:
        """Open the authority in ``folder``. Raises StorageError if it is missing, damaged or not a pair."""
        try:
            key = load_pem_private_key((folder / "ca.key.pem").read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            # Its own signature is over every byte that means anything.
            certificate.verify_directly_issued_by(certificate)
        except OSError as error:
            raise StorageError(
                f"{folder}: no certificate authority ({error.strerror}); run 'hedgerow server init'"
            ) from error
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, InternalError) as error:
            raise StorageError(
                f"{folder}: the authority's key or certificate is damaged; restore it from a backup"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise StorageError(f"{folder}: ca.key.pem is not the key of ca.pem")
        return cls(folder, Issuer(key, certificate))

    def server_pair(
        self, hosts: Sequence[str] = (), *, now: datetime | None = None, name: str = SERVER_NAME
    ) -> PemPair:
        """Return a server's key and certificate for loopback and ``hosts``, made anew when a host is new or a third
        of its life is left. ``name`` other than the default serves another server of the fleet (a broker, say).
        """
        moment = now or datetime.now(UTC)
        stem = "server" if name == SERVER_NAME else name
        pair = PemPair(self.folder / f"{stem}.key.pem", self.folder / f"{stem}.pem")
        wanted = (*LOOPBACK_HOSTS, *hosts)
        if not self._still_good(pair, wanted, moment):
            key = new_key()
            certificate = self.issuer.server(key.public_key(), wanted, moment, name)
            write_atomically(pair.key, _key_pem(key), 0o600)
            write_atomically(pair.certificate, certificate.public_bytes(Encoding.PEM))
        return pair

    def write_revocation_list(
        self, revoked: Iterable[tuple[int, datetime]], now: datetime | None = None
    ) -> Path:
        """Sign the list of revoked ``(serial, time)`` afresh and return its path (PEM, good for a year)."""
        path = self.folder / "crl.pem"
        listed = self.issuer.revocation_list(revoked, now or datetime.now(UTC))
        write_atomically(path, listed.public_bytes(Encoding.PEM))
        return path

    def _still_good(self, pair: PemPair, hosts: Sequence[str], now: datetime) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
            key = load_pem_private_key(pair.key.read_bytes(), password=None)
            certificate.verify_directly_issued_by(self.certificate)
            named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (
            OSError,
            ValueError,
            TypeError,
            InvalidSignature,
            UnsupportedAlgorithm,
            InternalError,
            x509.ExtensionNotFound,
        ):
            return False
        if (
            key.public_key() != certificate.public_key()
            or certificate.not_valid_after_utc - now < SERVER_LIFE / 3
        ):
            return False
        have = set(named.get_values_for_type(x509.DNSName))
        have |= {str(address) for address in named.get_values_for_type(x509.IPAddress)}
        return have >= set(hosts)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
