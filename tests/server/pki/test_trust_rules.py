"""Tokens, names and certificates over every mix of circumstances, beside the rules written out once more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.pki.attempts import Attempts
from hedgerow.server.pki.certificates import CLOCK_SLACK, DEVICE_LIFE, Issuer, build_ca, new_key
from hedgerow.server.pki.trust import (
    MAX_TOKEN_FAILURES,
    KnownCertificate,
    NameTakenError,
    Peer,
    TokenRecord,
    WrongSecretError,
    judge_certificate,
    judge_name,
    judge_standing,
    judge_token,
    knows_secret,
)
from hedgerow.shared.errors import AuthError
from hedgerow.shared.identity import device_uri
from hedgerow.shared.join_token import secret_hash

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = "s" * 32
DEVICES = st.sampled_from(["pump-1", "pump-2"])
RECORDS = st.builds(
    TokenRecord,
    id=st.just("0" * 8),
    secret_sha256=st.just(secret_hash(SECRET)),
    expires_at=st.integers(-3, 3).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    device=st.none() | DEVICES,
    used_by=st.none() | DEVICES,
    used_key=st.none() | st.sampled_from(["key", "other"]),
    failures=st.integers(0, MAX_TOKEN_FAILURES + 1),
)


def expected(record: TokenRecord, secret: str, device: str) -> str:
    """The rules in their order, as a person would read them out."""
    if secret != SECRET:
        return "not known here"
    if record.failures >= MAX_TOKEN_FAILURES:
        return "shut after too many wrong secrets"
    if record.expires_at <= NOW:
        return "expired at"
    if record.used_by == device and record.used_key == "key":
        return "repeat"
    if record.used_by is not None:
        return "used already"
    return "new" if record.device in (None, device) else f"for the device {record.device!r}"


@given(RECORDS, st.sampled_from([SECRET, "wrong"]), DEVICES)
def test_a_token_is_judged_by_its_rules_in_their_order(record: TokenRecord, secret: str, device: str) -> None:
    verdict = expected(record, secret, device)
    if verdict in ("new", "repeat"):
        assert judge_token(record, secret, device, "key", NOW) == verdict
    else:
        with pytest.raises(AuthError, match=verdict):
            judge_token(record, secret, device, "key", NOW)


@given(RECORDS, st.text(max_size=40).filter(lambda text: text != SECRET), DEVICES)
def test_whoever_lacks_the_secret_is_told_the_same_of_every_token(
    record: TokenRecord, secret: str, device: str
) -> None:
    assert not knows_secret(record, secret)
    said = []
    for asked in (record, None):
        with pytest.raises(WrongSecretError) as error:
            judge_token(asked, secret, device, "key", NOW)
        said.append(str(error.value))

    assert said[0] == said[1]


@given(RECORDS, DEVICES, st.booleans())
def test_a_name_is_given_twice_to_nobody_but_its_own_replacement(
    record: TokenRecord, device: str, taken: bool
) -> None:
    if taken and record.device != device:
        with pytest.raises(NameTakenError, match=f"{device!r} is in the fleet already"):
            judge_name(record, device, taken=taken)
    else:
        judge_name(record, device, taken=taken)


@given(st.integers(-5, 5), st.booleans())
def test_standing_ends_with_revocation_and_with_the_overlap(minutes: int, revoked: bool) -> None:
    record = KnownCertificate(7, "pump-1", "0" * 64, NOW + timedelta(minutes=minutes), revoked)
    if revoked:
        with pytest.raises(AuthError, match="was revoked"):
            judge_standing(record, NOW)
    elif minutes <= 0:
        with pytest.raises(AuthError, match="replaced or has ended"):
            judge_standing(record, NOW)
    else:
        judge_standing(record, NOW)


class Fleet:
    """A CA with one registered device."""

    def __init__(self) -> None:
        self.key = new_key()
        self.issuer = Issuer(self.key, build_ca(self.key, "ca", NOW))
        self.certificate = self.issuer.device("pump-1", new_key().public_key(), NOW)

    def judge(self, certificate: x509.Certificate, now: datetime = NOW, device: str = "pump-1") -> Peer:
        """Judge a certificate that is registered, byte for byte, as ``device``'s."""
        record = KnownCertificate(
            certificate.serial_number,
            device,
            certificate.fingerprint(hashes.SHA256()).hex(),
            NOW + DEVICE_LIFE,
        )
        der = certificate.public_bytes(Encoding.DER)
        return judge_certificate(der, self.issuer.certificate, lambda _: record, now)

    def odd(
        self,
        *,
        names: tuple[str, ...] = ("pump-1",),
        uris: tuple[str, ...] = ("pump-1",),
        purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    ) -> x509.Certificate:
        """Sign what this CA would never issue."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.issuer.certificate.subject)
            .public_key(new_key().public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + DEVICE_LIFE)
        )
        if uris:
            listed = [x509.UniformResourceIdentifier(device_uri(name)) for name in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(listed), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


@settings(max_examples=60, deadline=None)
@given(seconds=st.integers(-3600, int(DEVICE_LIFE.total_seconds()) + 3600))
def test_a_certificate_is_good_from_its_slack_to_the_second_before_its_end(seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    good = -CLOCK_SLACK <= timedelta(seconds=seconds) < DEVICE_LIFE
    if good:
        assert SHARED.judge(SHARED.certificate, now) == Peer("pump-1", SHARED.certificate.serial_number)
    else:
        with pytest.raises(AuthError, match="outside its validity"):
            SHARED.judge(SHARED.certificate, now)


def test_the_odd_one_is_otherwise_good(fleet: Fleet) -> None:
    assert fleet.judge(fleet.odd()).device == "pump-1"


@pytest.mark.parametrize(
    "odd",
    [
        {"names": ("pump-2",)},
        {"uris": ("pump-2",)},
        {"uris": ("pump-1", "pump-2")},
        {"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"names": ("PUMP-1",)},
        {"names": ("pump-1 ",)},
    ],
)
def test_a_registered_certificate_that_does_not_name_its_device_once_and_alone_is_refused(
    fleet: Fleet, odd: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(AuthError, match="does not name the device it was issued to"):
        fleet.judge(fleet.odd(**odd))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "odd", [{"names": ()}, {"names": ("pump-1", "pump-1")}, {"uris": ()}, {"purposes": ()}]
)
def test_a_certificate_without_its_parts_is_none_of_this_fleets(
    fleet: Fleet, odd: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(AuthError, match="not one of this fleet's CA"):
        fleet.judge(fleet.odd(**odd))  # type: ignore[arg-type]


def test_a_certificate_registered_under_another_name_is_refused(fleet: Fleet) -> None:
    with pytest.raises(AuthError, match="does not name the device"):
        fleet.judge(fleet.certificate, device="pump-2")


def test_another_ca_of_the_same_name_is_another_ca(fleet: Fleet) -> None:
    other = Fleet()

    with pytest.raises(AuthError, match="not one of this fleet's CA"):
        fleet.judge(other.certificate)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=40))
def test_attempts_behave_as_a_bucket_that_leaks(events: list[tuple[str, float]]) -> None:
    now = 0.0
    attempts = Attempts(3, 10.0, clock=lambda: now)
    level = {"a": 0.0, "b": 0.0}
    for source, pause_s in events:
        now += pause_s
        level = {name: max(0.0, value - pause_s / 10.0) for name, value in level.items()}
        for name, value in level.items():
            assert attempts.wait_s(name) == pytest.approx(max(0.0, (value - 2) * 10.0), abs=1e-6)
        attempts.failed(source)
        level[source] += 1


def test_records_are_values(fleet: Fleet) -> None:
    record = KnownCertificate(7, "pump-1", "0" * 64, NOW)

    with pytest.raises(AttributeError):
        record.revoked = True  # type: ignore[misc]
    assert msgspec.structs.replace(record, revoked=True) != record


SHARED = Fleet()
