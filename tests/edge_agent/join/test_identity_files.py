from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import hedgerow.edge_agent.join.identity as module
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.identity import check_certificate, install_identity, make_key, signing_request
from hedgerow.edge_agent.link.renewal import read_facts
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.requests import key_of_request, spki_of
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.files import point_to, write_atomically

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("pki"))


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def install(authority: CertificateAuthority, home: AgentHome) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issuer.device("pump-1", key.public_key(), NOW)
    install_identity(home, key, certificate, authority.pem, "pump-1")
    return certificate


def test_key_is_on_disk_before_it_is_used_and_found_again(tmp_path: Path) -> None:
    key = make_key(tmp_path / "deep" / "key.pem")

    assert (tmp_path / "deep" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert make_key(tmp_path / "deep" / "key.pem").public_key() == key.public_key()


def test_key_of_another_curve_is_not_used(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "key.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    assert isinstance(make_key(tmp_path / "key.pem").curve, ec.SECP256R1)


@pytest.mark.parametrize("flip", [0x01, 0x04, 0x80])
def test_a_pending_key_with_any_byte_changed_is_used_as_it_was_or_replaced(tmp_path: Path, flip: int) -> None:
    """It was never shown to anyone, so that a damaged one costs nothing."""
    path = tmp_path / "key.pem"
    first = make_key(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        made = make_key(path)
        assert made.curve.name == "secp256r1"
        assert make_key(path).public_key() == made.public_key(), "and kept from then on"
        if path.read_bytes() == whole:
            assert made.public_key() == first.public_key()


def test_signing_request_is_what_the_server_accepts(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key.pem")

    assert spki_of(key_of_request(signing_request(key, "pump-1"), "pump-1")) == spki_of(key.public_key())


def test_installed_identity_can_be_used_and_its_facts_are_true(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    home = AgentHome(tmp_path)
    certificate = install(authority, home)
    facts = read_facts(home.identity_files().facts)

    device_context(home.identity_files())
    assert home.key.stat().st_mode & 0o777 == 0o600
    assert facts.serial == f"{certificate.serial_number:x}"
    assert facts.not_after_s == certificate.not_valid_after_utc.timestamp()


def test_power_cut_at_any_write_leaves_a_whole_identity(
    authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = AgentHome(tmp_path)
    install(authority, home)
    before = home.certificate.read_bytes()

    for cut in range(5):
        done = 0

        def failing(*arguments: object, cut: int = cut, real: object = None) -> None:
            nonlocal done
            if done == cut:
                raise StorageError("the power fails here")
            done += 1
            real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(module, "write_atomically", lambda *a, f=failing: f(*a, real=write_atomically))
        monkeypatch.setattr(module, "point_to", lambda *a, f=failing: f(*a, real=point_to))
        with pytest.raises(StorageError):
            install(authority, home)
        device_context(home.identity_files())
        assert home.certificate.read_bytes() == before


def test_certificate_for_this_key_and_name_is_accepted(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "k")
    certificate = authority.issuer.device("pump-1", key.public_key(), NOW)

    assert check_certificate(pem(certificate), authority.pem, key, "pump-1") == certificate


def armoured(der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("flip", [0x01, 0x02, 0x10, 0x80, 0xFF])
def test_a_certificate_with_any_byte_changed_is_refused_unless_all_that_was_signed_is_the_same(
    authority: CertificateAuthority, tmp_path: Path, flip: int
) -> None:
    """The few bytes around what is signed may be written in more than one way."""
    key = make_key(tmp_path / "k")
    certificate = authority.issuer.device("pump-1", key.public_key(), NOW)
    der, accepted = certificate.public_bytes(Encoding.DER), 0
    for place in range(len(der)):
        changed = der[:place] + bytes([der[place] ^ flip]) + der[place + 1 :]
        try:
            found = check_certificate(armoured(changed), authority.pem, key, "pump-1")
        except ContentError as error:
            assert "certificate from the server" in str(error)
        else:
            assert found.tbs_certificate_bytes == certificate.tbs_certificate_bytes
            accepted += 1
    assert accepted <= 2


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("flip", [0x01, 0x02, 0x80, 0xFF])
def test_a_certificate_under_a_ca_with_any_byte_changed_is_never_installed_but_for_its_own_signature(
    authority: CertificateAuthority, tmp_path: Path, flip: int
) -> None:
    """Whether the CA is the fleet's is decided by the pin of its key; this is what stands behind that."""
    key = make_key(tmp_path / "k")
    certificate = authority.issuer.device("pump-1", key.public_key(), NOW)
    der = authority.certificate.public_bytes(Encoding.DER)
    for place in range(len(der)):
        changed = der[:place] + bytes([der[place] ^ flip]) + der[place + 1 :]
        try:
            assert check_certificate(pem(certificate), armoured(changed), key, "pump-1") == certificate
        except ContentError:
            continue
        same = x509.load_der_x509_certificate(changed)
        assert same.public_key() == authority.certificate.public_key()


@pytest.mark.parametrize("text", ["", "garbage", "-----BEGIN CERTIFICATE-----\n", "ä" * 100, "\x00"])
def test_what_is_no_certificate_is_never_installed(
    authority: CertificateAuthority, tmp_path: Path, text: str
) -> None:
    key = make_key(tmp_path / "k")
    good = pem(authority.issuer.device("pump-1", key.public_key(), NOW))

    for certificate, ca in ((text, authority.pem), (good, text)):
        with pytest.raises(ContentError, match="not one of its CA"):
            check_certificate(certificate, ca, key, "pump-1")


def test_certificate_of_another_key_name_or_ca_is_refused(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    key, other = make_key(tmp_path / "k"), make_key(tmp_path / "other")
    foreign = CertificateAuthority.create(tmp_path / "foreign")
    wrong = [
        authority.issuer.device("pump-1", other.public_key(), NOW),
        authority.issuer.device("pump-2", key.public_key(), NOW),
        foreign.issuer.device("pump-1", key.public_key(), NOW),
        authority.certificate,
    ]
    for certificate in wrong:
        with pytest.raises(ContentError, match="certificate from the server"):
            check_certificate(pem(certificate), authority.pem, key, "pump-1")
