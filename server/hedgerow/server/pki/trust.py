"""Decides whom the server trusts: join tokens, device names, certificates. Pure: values in, verdict or error out.

Order for joining: token known and secret right, token neither spent nor expired, name allowed by token, name free.
Nothing about a token is told to one who does not know its secret.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hedgerow.shared.errors import AuthError, HedgerowError
from hedgerow.shared.identity import device_uri
from hedgerow.shared.join_token import secret_hash

MAX_TOKEN_FAILURES: Final = 10
_NO_SECRET: Final = "0" * 64
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class NameTakenError(HedgerowError):
    """Another device of the fleet has this name."""


class WrongSecretError(AuthError):
    """No token of that id and secret; the two are not told apart, and it counts against the token."""

    def __init__(self, token_id: str) -> None:
        super().__init__("this token is not known here: is it of this server, and whole?")
        self.token_id = token_id


class TokenRecord(msgspec.Struct, frozen=True):
    """What the server keeps of a token. ``device`` binds it to one name, which it may then also replace."""

    id: str
    secret_sha256: str
    expires_at: datetime
    device: str | None = None
    used_by: str | None = None
    used_key: str | None = None
    failures: int = 0


class KnownCertificate(msgspec.Struct, frozen=True):
    """A certificate that the server issued. ``usable_until`` is its end, or earlier once it was renewed."""

    serial: int
    device: str
    sha256: str
    usable_until: datetime
    revoked: bool = False


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of a connection."""

    device: str
    serial: int


def knows_secret(record: TokenRecord | None, secret: str) -> bool:
    """Tell, in time independent of the secret, whether ``secret`` is the token's; False where there is no token."""
    kept = record.secret_sha256 if record else _NO_SECRET
    return hmac.compare_digest(kept, secret_hash(secret)) and record is not None


def judge_token(
    record: TokenRecord | None, secret: str, device: str, key_pin: str, now: datetime
) -> Literal["new", "repeat"]:
    """Return ``new``, or ``repeat`` when this very key joined with this token before and lost the answer.

    Raises WrongSecretError if the token is unknown or the secret wrong, AuthError if the token is spent, expired,
    shut after too many wrong secrets, or made for another device.
    """
    if record is None or not knows_secret(record, secret):
        raise WrongSecretError("" if record is None else record.id)
    if record.failures >= MAX_TOKEN_FAILURES:
        raise AuthError("this token was shut after too many wrong secrets; make a new one")
    if now >= record.expires_at:
        raise AuthError(f"this token expired at {record.expires_at:%Y-%m-%d %H:%M} UTC; make a new one")
    if record.used_by is not None:
        if record.used_by == device and hmac.compare_digest(record.used_key or "", key_pin):
            return "repeat"
        raise AuthError("this token was used already; each device needs its own")
    if record.device is not None and record.device != device:
        raise AuthError(f"this token is for the device {record.device!r}, not {device!r}")
    return "new"


def judge_name(record: TokenRecord, device: str, *, taken: bool) -> None:
    """Refuse a name that another device has, unless the token was made to replace that very device.

    Raises NameTakenError.
    """
    if taken and record.device != device:
        raise NameTakenError(f"a device named {device!r} is in the fleet already; take another name")


def judge_certificate(
    der: bytes, ca: x509.Certificate, known: Callable[[int], KnownCertificate | None], now: datetime
) -> Peer:
    """Return whose certificate ``der`` is.

    Raises AuthError if it is no certificate, not signed by ``ca``, outside its validity, not made for a client,
    not one that the server issued under that serial, retired or revoked.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(ca)
        name, uris, purposes = _identity(certificate)
    except _UNREADABLE as error:
        raise AuthError("the certificate is not one of this fleet's CA") from error
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise AuthError(
            f"the certificate is outside its validity, which ends {certificate.not_valid_after_utc}"
        )
    record = known(certificate.serial_number)
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    if record is None or not hmac.compare_digest(record.sha256, fingerprint):
        raise AuthError("the certificate is not registered here")
    if name != record.device or uris != [device_uri(name)] or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise AuthError("the certificate does not name the device it was issued to")
    judge_standing(record, now)
    return Peer(record.device, record.serial)


def judge_standing(record: KnownCertificate, now: datetime) -> None:
    """Refuse a certificate that was revoked, or renewed longer ago than the overlap. Raises AuthError."""
    if record.revoked:
        raise AuthError(f"the certificate of {record.device!r} was revoked")
    if now >= record.usable_until:
        raise AuthError(f"the certificate of {record.device!r} was replaced or has ended")


def _identity(certificate: x509.Certificate) -> tuple[str, list[str], list[x509.ObjectIdentifier]]:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise ValueError("not one common name")
    extensions = certificate.extensions
    alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return (
        str(names[0].value),
        alternatives.get_values_for_type(x509.UniformResourceIdentifier),
        list(purposes),
    )
