from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from hedgerow.server.fleet import registry as module
from hedgerow.server.fleet.registry import CertificateRegistry
from hedgerow.server.pki.certificates import Issuer, build_ca, new_key
from hedgerow.server.pki.trust import KnownCertificate, Peer
from hedgerow.shared.errors import AuthError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class Bed:
    """A registry over a clock that tests move, and the authority behind it."""

    def __init__(self) -> None:
        key = new_key()
        self.now = NOW
        self.issuer = Issuer(key, build_ca(key, "ca", NOW))
        self.registry = CertificateRegistry(self.issuer.certificate, lambda: self.now)

    def add(self, device: str) -> tuple[bytes, KnownCertificate]:
        made = self.issuer.device(device, new_key().public_key(), self.now)
        known = KnownCertificate(
            made.serial_number, device, made.fingerprint(hashes.SHA256()).hex(), made.not_valid_after_utc
        )
        self.registry.replace([known])
        return made.public_bytes(Encoding.DER), known


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_verdict_is_remembered_and_the_signature_checked_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    der, known = bed.add("a")
    assert bed.registry.identify(der) == Peer("a", known.serial)

    def never(*_: object) -> Peer:
        raise AssertionError("judged again")

    monkeypatch.setattr(module, "judge_certificate", never)
    assert bed.registry.identify(der) == Peer("a", known.serial)


def test_revocation_strikes_what_was_remembered(bed: Bed) -> None:
    der, known = bed.add("a")
    bed.registry.identify(der)
    bed.registry.replace([msgspec.structs.replace(known, revoked=True)])

    with pytest.raises(AuthError, match="revoked"):
        bed.registry.identify(der)


def test_end_of_life_strikes_what_was_remembered(bed: Bed) -> None:
    der, _ = bed.add("a")
    bed.registry.identify(der)
    bed.now += timedelta(days=30)

    with pytest.raises(AuthError):
        bed.registry.identify(der)


def test_retirement_strikes_what_was_remembered(bed: Bed) -> None:
    der, known = bed.add("a")
    bed.registry.identify(der)
    bed.registry.replace([msgspec.structs.replace(known, usable_until=NOW + timedelta(hours=1))])
    bed.registry.identify(der)
    bed.now += timedelta(hours=1)

    with pytest.raises(AuthError, match="replaced"):
        bed.registry.identify(der)


def test_refusals_are_not_remembered(bed: Bed) -> None:
    made = bed.issuer.device("a", new_key().public_key(), NOW)
    der = made.public_bytes(Encoding.DER)
    with pytest.raises(AuthError, match="not registered"):
        bed.registry.identify(der)
    bed.registry.replace(
        [
            KnownCertificate(
                made.serial_number, "a", made.fingerprint(hashes.SHA256()).hex(), made.not_valid_after_utc
            )
        ]
    )

    assert bed.registry.identify(der).device == "a"


def test_memory_is_bounded(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    ders = [bed.add(f"d{n}")[0] for n in range(10)]
    for der in ders * 2:
        bed.registry.identify(der)

    assert len(bed.registry._judged) <= 3


def test_ended_certificates_are_forgotten_and_others_stay(bed: Bed) -> None:
    old, _ = bed.add("old")
    bed.now += timedelta(days=20)
    young, _ = bed.add("young")
    bed.now += timedelta(days=15)
    bed.registry.drop_ended()

    assert bed.registry.identify(young).device == "young"
    assert len(bed.registry._known) == 1
    with pytest.raises(AuthError):
        bed.registry.identify(old)


def test_revocation_from_another_thread_is_seen_by_readers(bed: Bed) -> None:
    der, known = bed.add("a")
    stopped = threading.Event()
    refused = threading.Event()

    def reader() -> None:
        while not stopped.is_set():
            try:
                bed.registry.identify(der)
            except AuthError:
                refused.set()
                return

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    bed.registry.replace([msgspec.structs.replace(known, revoked=True)])
    for thread in threads:
        thread.join(20)
    stopped.set()

    assert refused.is_set() and not any(thread.is_alive() for thread in threads)
    assert x509.load_der_x509_certificate(der).serial_number == known.serial
