"""Builds certificates and revocation lists from values; reads no file and no clock."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hedgerow.shared.identity import SERVER_NAME, device_uri

CA_LIFE: Final = timedelta(days=20 * 365)
SERVER_LIFE: Final = timedelta(days=397)
DEVICE_LIFE: Final = timedelta(days=30)
CRL_LIFE: Final = timedelta(days=365)
CLOCK_SLACK: Final = timedelta(minutes=5)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key from the operating system's generator."""
    return ec.generate_private_key(ec.SECP256R1())


def build_ca(key: ec.EllipticCurvePrivateKey, name: str, now: datetime) -> x509.Certificate:
    """Return a self-signed CA that may sign end certificates and revocation lists only."""
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), now, CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return builder.sign(key, hashes.SHA256())


class Issuer:
    """A CA's key beside its certificate; everything that is signed goes through here."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    def device(self, device: str, public_key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
        """Return a client certificate for ``device``; nothing of its signing request but the key is taken over."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(device_uri(device))]
        return self._end(device, public_key, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, life=DEVICE_LIFE)

    def server(
        self,
        public_key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: datetime,
        name: str = SERVER_NAME,
    ) -> x509.Certificate:
        """Return a server certificate for ``name`` and ``hosts`` (DNS names or IP addresses)."""
        names = [_general_name(host) for host in dict.fromkeys([name, *hosts])]
        return self._end(name, public_key, names, ExtendedKeyUsageOID.SERVER_AUTH, now, life=SERVER_LIFE)

    def revocation_list(
        self, revoked: Iterable[tuple[int, datetime]], now: datetime
    ) -> x509.CertificateRevocationList:
        """Return the list of revoked ``(serial, time)``; its number is the time in milliseconds, so that it grows."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - CLOCK_SLACK)
            .next_update(now + CRL_LIFE)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(self._authority_id(), critical=False)
        )
        for serial, at in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256())

    def _end(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        names: list[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: datetime,
        *,
        life: timedelta,
    ) -> x509.Certificate:
        builder = _builder(_name(name), self.certificate.subject, public_key, now, life)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        builder = builder.add_extension(self._authority_id(), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _authority_id(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + life)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
