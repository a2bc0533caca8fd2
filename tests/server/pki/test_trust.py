from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.pki.certificates import Issuer, build_ca, new_key
from hedgerow.server.pki.trust import (
    MAX_TOKEN_FAILURES,
    KnownCertificate,
    NameTakenError,
    Peer,
    TokenRecord,
    WrongSecretError,
    judge_certificate,
    judge_name,
    judge_token,
)
from hedgerow.shared.errors import AuthError
from hedgerow.shared.join_token import secret_hash

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = "s" * 32
TOKEN = TokenRecord("00000000", secret_hash(SECRET), NOW + timedelta(minutes=15))


def changed(**changes: object) -> TokenRecord:
    return msgspec.structs.replace(TOKEN, **changes)


def test_fresh_token_is_good() -> None:
    assert judge_token(TOKEN, SECRET, "pump-1", "key", NOW) == "new"


@pytest.mark.parametrize("record", [None, TOKEN])
def test_unknown_token_and_wrong_secret_are_told_alike(record: TokenRecord | None) -> None:
    with pytest.raises(WrongSecretError, match="not known here"):
        judge_token(record, "wrong", "pump-1", "key", NOW)


@given(st.text(max_size=64).filter(lambda text: text != SECRET))
def test_no_other_secret_opens_a_token(secret: str) -> None:
    with pytest.raises(WrongSecretError):
        judge_token(TOKEN, secret, "pump-1", "key", NOW)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (changed(used_by="pump-2", used_key="other"), "used already"),
        (changed(used_by="pump-1", used_key="other"), "used already"),
        (changed(used_by="pump-2", used_key="key"), "used already"),
        (changed(used_by="pump-1"), "used already"),
        (changed(expires_at=NOW), "expired at 2026-05-01 00:00"),
        (changed(used_by="pump-1", used_key="key", expires_at=NOW), "expired"),
        (changed(failures=MAX_TOKEN_FAILURES), "too many wrong secrets"),
        (changed(device="pump-2"), "for the device 'pump-2'"),
    ],
)
def test_token_is_refused_with_its_reason(record: TokenRecord, reason: str) -> None:
    with pytest.raises(AuthError, match=reason):
        judge_token(record, SECRET, "pump-1", "key", NOW)


@pytest.mark.parametrize(
    "record",
    [
        changed(used_by="a", used_key="k"),
        changed(expires_at=NOW),
        changed(failures=99),
        changed(device="pump-2"),
    ],
)
def test_nothing_of_a_token_is_told_without_its_secret(record: TokenRecord) -> None:
    with pytest.raises(WrongSecretError, match="not known here"):
        judge_token(record, "wrong", "pump-1", "key", NOW)


def test_the_same_key_may_ask_again() -> None:
    assert judge_token(changed(used_by="pump-1", used_key="key"), SECRET, "pump-1", "key", NOW) == "repeat"


def test_taken_name_is_refused_unless_the_token_is_for_that_very_device() -> None:
    judge_name(TOKEN, "pump-1", taken=False)
    judge_name(changed(device="pump-1"), "pump-1", taken=True)
    with pytest.raises(NameTakenError, match="already"):
        judge_name(TOKEN, "pump-1", taken=True)


class Case:
    """An authority, one of its device certificates, and the record of it."""

    def __init__(self) -> None:
        key = new_key()
        self.issuer = Issuer(key, build_ca(key, "ca", NOW))
        self.certificate = self.issuer.device("pump-1", new_key().public_key(), NOW)
        self.record = record_of(self.certificate, "pump-1")

    def judge(
        self, certificate: x509.Certificate | None = None, now: datetime = NOW, **record: object
    ) -> Peer:
        presented = certificate or self.certificate
        known = msgspec.structs.replace(self.record, **record)
        return judge_certificate(
            presented.public_bytes(Encoding.DER), self.issuer.certificate, {known.serial: known}.get, now
        )


def record_of(certificate: x509.Certificate, device: str) -> KnownCertificate:
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    return KnownCertificate(certificate.serial_number, device, fingerprint, certificate.not_valid_after_utc)


@pytest.fixture
def case() -> Case:
    return Case()


def test_registered_certificate_is_its_device(case: Case) -> None:
    assert case.judge() == Peer("pump-1", case.certificate.serial_number)


@pytest.mark.parametrize("days", [-1, 30, 31, 3650])
def test_certificate_outside_its_validity_is_refused(case: Case, days: int) -> None:
    with pytest.raises(AuthError, match="validity"):
        case.judge(now=NOW + timedelta(days=days))


def test_revoked_certificate_is_refused(case: Case) -> None:
    with pytest.raises(AuthError, match="revoked"):
        case.judge(revoked=True)


def test_replaced_certificate_is_refused_after_the_overlap(case: Case) -> None:
    until = NOW + timedelta(days=1)
    case.judge(usable_until=until, now=until - timedelta(seconds=1))
    with pytest.raises(AuthError, match="replaced"):
        case.judge(usable_until=until, now=until)


def test_certificate_of_another_ca_is_refused_even_with_a_known_serial(case: Case) -> None:
    foreign = Case()
    with pytest.raises(AuthError, match="not one of this fleet"):
        case.judge(foreign.certificate, serial=foreign.certificate.serial_number)


def test_certificate_of_our_ca_that_was_never_registered_is_refused(case: Case) -> None:
    other = case.issuer.device("pump-1", new_key().public_key(), NOW)
    with pytest.raises(AuthError, match="not registered"):
        case.judge(other)


def test_certificate_with_the_serial_of_another_is_refused(case: Case) -> None:
    other = case.issuer.device("pump-2", new_key().public_key(), NOW)
    with pytest.raises(AuthError, match="not registered"):
        case.judge(other, serial=other.serial_number)


def test_servers_own_certificate_is_no_device(case: Case) -> None:
    server = case.issuer.server(new_key().public_key(), ["pump-1"], NOW, "pump-1")
    record = record_of(server, "pump-1")
    with pytest.raises(AuthError, match="does not name the device"):
        case.judge(server, serial=record.serial, sha256=record.sha256)


def test_record_of_another_device_is_refused(case: Case) -> None:
    with pytest.raises(AuthError, match="does not name the device"):
        case.judge(device="pump-2")


def test_ca_itself_is_no_device(case: Case) -> None:
    with pytest.raises(AuthError, match="not one of this fleet"):
        case.judge(case.issuer.certificate)


@given(st.binary(max_size=300))
def test_garbage_is_refused(der: bytes) -> None:
    with pytest.raises(AuthError):
        judge_certificate(der, GARBAGE_CASE.issuer.certificate, lambda _: None, NOW)


@given(st.data())
def test_a_certificate_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    der = bytearray(GARBAGE_CASE.certificate.public_bytes(Encoding.DER))
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    known = GARBAGE_CASE.record
    with pytest.raises(AuthError):
        judge_certificate(bytes(der), GARBAGE_CASE.issuer.certificate, {known.serial: known}.get, NOW)


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x10, 0x80, 0xFF])
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_certificate_is_refused_whichever_byte_was_changed(flip: int) -> None:
    """Each byte in turn: version, serial, names, times, key, extensions, signature."""
    der = GARBAGE_CASE.certificate.public_bytes(Encoding.DER)
    known = GARBAGE_CASE.record
    for place in range(len(der)):
        changed = der[:place] + bytes([der[place] ^ flip]) + der[place + 1 :]
        with pytest.raises(AuthError):
            judge_certificate(changed, GARBAGE_CASE.issuer.certificate, lambda _: known, NOW)


@pytest.mark.parametrize("length", [0, 1, 4, 100, -1])
def test_a_certificate_that_is_cut_off_or_followed_by_more_is_refused(length: int) -> None:
    der = GARBAGE_CASE.certificate.public_bytes(Encoding.DER)
    known = GARBAGE_CASE.record
    for changed in (der[:length], der + b"\x00", der + der):
        with pytest.raises(AuthError):
            judge_certificate(changed, GARBAGE_CASE.issuer.certificate, lambda _: known, NOW)


GARBAGE_CASE = Case()
