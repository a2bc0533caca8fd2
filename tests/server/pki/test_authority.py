from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.shared.errors import ConfigError, StorageError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_created_authority_is_loaded_again_with_the_same_pin(tmp_path: Path) -> None:
    made = CertificateAuthority.create(tmp_path / "pki")

    assert CertificateAuthority.load(tmp_path / "pki").pin == made.pin
    assert len(made.pin) == 64 and made.server_id == made.pin[:16]


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    made = CertificateAuthority.create(tmp_path / "pki")
    pair = made.server_pair()

    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "pki" / "ca.key.pem").stat().st_mode & 0o777 == 0o600
    assert pair.key.stat().st_mode & 0o777 == 0o600


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    made = CertificateAuthority.create(tmp_path)
    with pytest.raises(ConfigError, match="already"):
        CertificateAuthority.create(tmp_path)

    assert CertificateAuthority.load(tmp_path).pin == made.pin


def test_missing_authority_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="server init"):
        CertificateAuthority.load(tmp_path)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key.pem"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_damaged_authority_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    CertificateAuthority.create(tmp_path)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(StorageError, match="damaged"):
        CertificateAuthority.load(tmp_path)


def test_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    CertificateAuthority.create(tmp_path / "a")
    CertificateAuthority.create(tmp_path / "b")
    (tmp_path / "b" / "ca.key.pem").replace(tmp_path / "a" / "ca.key.pem")

    with pytest.raises(StorageError, match="not the key"):
        CertificateAuthority.load(tmp_path / "a")


def test_server_certificate_is_kept_while_good(tmp_path: Path) -> None:
    made = CertificateAuthority.create(tmp_path, now=NOW)
    first = certificate(made.server_pair(["hub.example"], now=NOW).certificate)

    assert certificate(made.server_pair(["hub.example"], now=NOW).certificate) == first
    assert certificate(made.server_pair([], now=NOW).certificate) == first


def test_server_certificate_is_made_anew_for_a_new_host_before_its_end_and_when_damaged(
    tmp_path: Path,
) -> None:
    made = CertificateAuthority.create(tmp_path, now=NOW)
    pair = made.server_pair(now=NOW)
    serials = [certificate(pair.certificate).serial_number]
    made.server_pair(["10.1.2.3"], now=NOW)
    serials.append(certificate(pair.certificate).serial_number)
    made.server_pair(["10.1.2.3"], now=NOW + timedelta(days=300))
    serials.append(certificate(pair.certificate).serial_number)
    pair.key.write_bytes(b"broken")
    made.server_pair(["10.1.2.3"], now=NOW + timedelta(days=300))
    serials.append(certificate(pair.certificate).serial_number)

    assert len(set(serials)) == 4


def test_another_server_of_the_fleet_has_its_own_pair_and_not_the_servers_name(tmp_path: Path) -> None:
    made = CertificateAuthority.create(tmp_path)
    broker = made.server_pair(["broker.example"], name="hedgerow-broker")
    names = (
        certificate(broker.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    )

    assert broker.key != made.server_pair().key
    assert "hedgerow-server" not in names.get_values_for_type(x509.DNSName)
    assert "hedgerow-broker" in names.get_values_for_type(x509.DNSName)


def test_revocation_list_is_there_from_the_start(tmp_path: Path) -> None:
    made = CertificateAuthority.create(tmp_path)
    assert list(x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())) == []

    made.write_revocation_list([(5, NOW)])
    assert [entry.serial_number for entry in x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())] == [
        5
    ]
