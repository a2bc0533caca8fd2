from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from hedgerow.server.pki.certificates import Issuer, build_ca, new_key

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def issuer() -> Issuer:
    key = new_key()
    return Issuer(key, build_ca(key, "test CA", NOW))


def test_keys_are_p256() -> None:
    assert isinstance(new_key().curve, ec.SECP256R1)


def test_ca_signs_itself_and_may_sign_only_end_certificates(issuer: Issuer) -> None:
    ca = issuer.certificate
    ca.verify_directly_issued_by(ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)

    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature


def test_device_certificate_lives_thirty_days_and_begins_five_minutes_ago(issuer: Issuer) -> None:
    made = issuer.device("pump-1", new_key().public_key(), NOW)

    assert made.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert made.not_valid_after_utc == NOW + timedelta(days=30)


def test_device_certificate_names_the_device_and_is_for_clients_only(issuer: Issuer) -> None:
    made = issuer.device("pump-1", new_key().public_key(), NOW)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    made.verify_directly_issued_by(issuer.certificate)
    assert made.subject.rfc4514_string() == "CN=pump-1"
    assert list(names) == [x509.UniformResourceIdentifier("hedgerow://device/pump-1")]
    purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_server_certificate_names_hosts_and_addresses_once(issuer: Issuer) -> None:
    made = issuer.server(
        new_key().public_key(), ["localhost", "10.0.0.1", "::1", "hub.example", "localhost"], NOW
    )
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName) == ["hedgerow-server", "localhost", "hub.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]
    purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_serials_differ(issuer: Issuer) -> None:
    key = new_key().public_key()

    assert issuer.device("a", key, NOW).serial_number != issuer.device("a", key, NOW).serial_number


def test_revocation_list_names_serials_is_signed_and_grows(issuer: Issuer) -> None:
    first = issuer.revocation_list([(7, NOW)], NOW)
    second = issuer.revocation_list([(7, NOW), (9, NOW)], NOW + timedelta(seconds=1))

    public = issuer.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert first.is_signature_valid(public)
    assert {entry.serial_number for entry in second} == {7, 9}
    numbers = [
        made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for made in (first, second)
    ]
    assert numbers[0] < numbers[1]
    assert first.next_update_utc == NOW + timedelta(days=365)


def test_openssl_agrees_with_the_chain_and_the_revocation(issuer: Issuer, tmp_path: Path) -> None:
    good, bad = (issuer.device(name, new_key().public_key(), NOW) for name in ("good", "bad"))
    (tmp_path / "ca.pem").write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "crl.pem").write_bytes(
        issuer.revocation_list([(bad.serial_number, NOW)], NOW).public_bytes(Encoding.PEM)
    )

    def verdict(certificate: x509.Certificate, purpose: str) -> int:
        (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-crl_check"]
        command += [
            "-attime",
            str(int(NOW.timestamp())),
            "-CAfile",
            "ca.pem",
            "-CRLfile",
            "crl.pem",
            "cert.pem",
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert verdict(good, "sslclient") == 0
    assert verdict(good, "sslserver") != 0
    assert verdict(bad, "sslclient") != 0
    assert verdict(issuer.server(new_key().public_key(), ["a.example"], NOW), "sslserver") == 0
