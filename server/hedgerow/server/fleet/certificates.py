"""The certificates that were issued, as rows: issue, find, retire, revoke. Every function works inside a transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select
from sqlalchemy.orm import Session

from hedgerow.server.fleet.tables import CertificateRow
from hedgerow.server.pki.trust import KnownCertificate


def add_certificate(
    session: Session, device: str, issued: x509.Certificate, spki: bytes, now: datetime
) -> CertificateRow:
    """Write down a certificate that was just signed over the public key ``spki``."""
    end = issued.not_valid_after_utc.replace(tzinfo=None)
    row = CertificateRow(
        serial=f"{issued.serial_number:x}",
        device=device,
        sha256=issued.fingerprint(hashes.SHA256()).hex(),
        spki=spki,
        pem=issued.public_bytes(Encoding.PEM).decode(),
        issued_at=now,
        not_after=end,
        usable_until=end,
    )
    session.add(row)
    return row


def usable_certificates(session: Session, device: str, now: datetime) -> list[CertificateRow]:
    """Return the certificates that a device may use now, newest first."""
    query = select(CertificateRow).where(
        CertificateRow.device == device,
        CertificateRow.revoked_at.is_(None),
        CertificateRow.usable_until > now,
    )
    return list(session.scalars(query.order_by(CertificateRow.issued_at.desc())))


def revoke_certificates(session: Session, device: str, now: datetime) -> list[KnownCertificate]:
    """Revoke every certificate of a device that is not yet; return them as they are now."""
    query = select(CertificateRow).where(CertificateRow.device == device, CertificateRow.revoked_at.is_(None))
    rows = session.scalars(query).all()
    for row in rows:
        row.revoked_at = now
    return [known(row) for row in rows]


def revoked_serials(session: Session, now: datetime) -> list[tuple[int, datetime]]:
    """Return serial and time of what was revoked and would otherwise still be valid: what a revocation list holds."""
    query = select(CertificateRow).where(
        CertificateRow.revoked_at.is_not(None), CertificateRow.not_after > now
    )
    rows = session.scalars(query)
    return [(int(row.serial, 16), row.revoked_at.replace(tzinfo=UTC)) for row in rows if row.revoked_at]


def known(row: CertificateRow) -> KnownCertificate:
    """Return a row as the value that trust decisions are made on."""
    until = row.usable_until.replace(tzinfo=UTC)
    return KnownCertificate(int(row.serial, 16), row.device, row.sha256, until, row.revoked_at is not None)
