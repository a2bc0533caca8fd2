"""The authority's folder byte by byte: what is damaged is noticed, what is good is kept, what is made anew is whole."""

from __future__ import annotations

import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.certificates import SERVER_LIFE, new_key
from hedgerow.shared.errors import ConfigError, StorageError
from hedgerow.shared.identity import SERVER_NAME

NOW = datetime(2026, 5, 1, tzinfo=UTC)
BROAD = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "ca"
    CertificateAuthority.create(folder, now=NOW).server_pair(("fleet.example.org", "10.0.0.1"), now=NOW)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "ca"))


def loads(folder: Path) -> CertificateAuthority | None:
    """Return the authority, None where it is refused for a reason that a person can act on."""
    try:
        return CertificateAuthority.load(folder)
    except (ConfigError, StorageError) as error:
        assert str(folder) in str(error)
        return None


@BROAD
@given(st.data())
def test_an_authority_with_any_byte_changed_is_refused_or_still_the_same(
    made: Path, data: st.DataObject
) -> None:
    """A PEM file has bytes that mean nothing (line ends); one that matters never goes unnoticed."""
    name = data.draw(st.sampled_from(["ca.pem", "ca.key.pem"]))
    whole = CertificateAuthority.load(made)
    content = bytearray((made / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    before = (made / name).read_bytes()
    try:
        (made / name).write_bytes(content)
        found = loads(made)
        assert found is None or (found.pin, found.certificate) == (whole.pin, whole.certificate)
    finally:
        (made / name).write_bytes(before)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key.pem"])
def test_an_authority_cut_off_anywhere_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for length in range(0, len(content) - 1, 37):
        (folder / name).write_bytes(content[:length])
        assert loads(folder) is None, length


@pytest.mark.parametrize("missing", ["ca.pem", "ca.key.pem"])
def test_half_an_authority_is_refused_and_nothing_is_made_in_its_place(folder: Path, missing: str) -> None:
    (folder / missing).unlink()

    assert loads(folder) is None
    assert not (folder / missing).exists()


def test_two_fleets_share_nothing(tmp_path: Path) -> None:
    one, other = (CertificateAuthority.create(tmp_path / name, now=NOW) for name in ("a", "b"))

    assert one.pin != other.pin
    assert one.server_id != other.server_id
    with pytest.raises(ValueError, match="Issuer"):
        one.issuer.device("pump-1", new_key().public_key(), NOW).verify_directly_issued_by(
            other.issuer.server(new_key().public_key(), (), NOW)
        )


def test_the_server_id_is_the_pins_beginning(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "a", now=NOW)

    assert authority.pin.startswith(authority.server_id)
    assert len(authority.server_id) == 16


def modes(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o077}


def test_only_what_is_public_may_be_read_by_others(folder: Path) -> None:
    assert not {name for name in modes(folder) if "key" in name}


HOSTS = ("fleet.example.org", "10.0.0.1")


def serial(folder: Path, now: datetime = NOW, hosts: tuple[str, ...] = HOSTS) -> int:
    pair = CertificateAuthority.load(folder).server_pair(hosts, now=now)
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


@pytest.mark.parametrize("hosts", [HOSTS, HOSTS[:1], HOSTS[::-1], (), ("127.0.0.1", "localhost")])
def test_the_servers_pair_is_kept_while_it_names_every_host_asked_for(
    folder: Path, hosts: tuple[str, ...]
) -> None:
    before = serial(folder)

    assert serial(folder, hosts=hosts) == before


@pytest.mark.parametrize("hosts", [(*HOSTS, "new.example.org"), ("10.0.0.2",), ("FLEET.example.org.",)])
def test_the_servers_pair_is_made_anew_for_a_host_it_does_not_name(
    folder: Path, hosts: tuple[str, ...]
) -> None:
    before = serial(folder)

    assert serial(folder, hosts=hosts) != before


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        (SERVER_LIFE * 2 / 3 - timedelta(hours=1), True),
        (SERVER_LIFE * 2 / 3 + timedelta(hours=1), False),
        (SERVER_LIFE * 3, False),
    ],
)
def test_the_servers_pair_is_renewed_in_the_last_third_of_its_life(
    folder: Path, after: timedelta, kept: bool
) -> None:
    before = serial(folder)

    assert (serial(folder, NOW + after) == before) is kept


@pytest.mark.parametrize("spoiled", ["key", "certificate"])
@pytest.mark.parametrize("how", ["gone", "garbage", "of another"])
def test_a_servers_pair_that_does_not_fit_is_made_anew_whole(
    folder: Path, tmp_path: Path, spoiled: str, how: str
) -> None:
    authority = CertificateAuthority.load(folder)
    pair = authority.server_pair(HOSTS, now=NOW)
    path = getattr(pair, spoiled)
    if how == "gone":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"\x00" * 99)
    else:
        other = CertificateAuthority.create(tmp_path / "other", now=NOW).server_pair(HOSTS, now=NOW)
        path.write_bytes(getattr(other, spoiled).read_bytes())

    again = authority.server_pair(HOSTS, now=NOW)

    certificate = x509.load_pem_x509_certificate(again.certificate.read_bytes())
    certificate.verify_directly_issued_by(authority.certificate)
    key = load_pem_private_key(again.key.read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    assert stat.S_IMODE(again.key.stat().st_mode) == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(again.certificate, again.key)


def test_a_servers_certificate_always_has_the_name_that_devices_ask_for(folder: Path) -> None:
    pair = CertificateAuthority.load(folder).server_pair((), now=NOW)
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert SERVER_NAME in names.get_values_for_type(x509.DNSName)


@BROAD
@given(serials=st.lists(st.integers(1, 2**159 - 1), unique=True, max_size=30))
def test_the_revocation_list_holds_exactly_what_was_revoked(made: Path, serials: list[int]) -> None:
    authority = CertificateAuthority.load(made)

    path = authority.write_revocation_list(((serial, NOW) for serial in serials), NOW)

    listed = x509.load_pem_x509_crl(path.read_bytes())
    assert {entry.serial_number for entry in listed} == set(serials)
    assert listed.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
    assert listed.next_update_utc is not None
    assert listed.next_update_utc > NOW + timedelta(days=300)


def test_a_disk_that_refuses_leaves_the_old_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = CertificateAuthority.load(folder)
    path = authority.write_revocation_list([(5, NOW)], NOW)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hedgerow.shared.files.os.fsync", full)
    with pytest.raises(StorageError, match=r"crl\.pem: cannot be written: No space left"):
        authority.write_revocation_list([(5, NOW), (6, NOW)], NOW)

    assert path.read_bytes() == before
    assert not [left for left in folder.iterdir() if left.name.startswith(".")]
