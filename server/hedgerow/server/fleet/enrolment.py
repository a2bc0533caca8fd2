"""How a device gets into the fleet and stays: joining by token, renewing its certificate over a new key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import update
from sqlalchemy.orm import Session

from hedgerow.server.bus import Bus
from hedgerow.server.fleet.certificates import (
    add_certificate,
    known,
    revoke_certificates,
    usable_certificates,
)
from hedgerow.server.fleet.devices import Devices
from hedgerow.server.fleet.tables import CertificateRow, DeviceRow, JoinTokenRow
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.requests import key_of_request, spki_of
from hedgerow.server.pki.trust import (
    KnownCertificate,
    TokenRecord,
    WrongSecretError,
    judge_name,
    judge_token,
)
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import AuthError
from hedgerow.shared.identity import check_device_name, spki_pin
from hedgerow.shared.messages import JoinRequest, JoinResponse, RenewResponse

RENEWAL_OVERLAP: Final = timedelta(days=1)
MAX_USABLE_CERTIFICATES: Final = 4


class Enrolment:
    """Lets devices in. Both methods block on the database and run one at a time: call them from a thread.

    ``on_key`` hears (device, public key as DER SubjectPublicKeyInfo) after each join and renewal, in that thread, so
    that the Flower adapter can keep its nodes in step.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        authority: CertificateAuthority,
        devices: Devices,
        *,
        tuf_root: Callable[[], str],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._bus = bus
        self._authority = authority
        self._devices = devices
        self._tuf_root = tuf_root
        self._now = now
        self._one_at_a_time = threading.Lock()
        self.on_key: list[Callable[[str, bytes], None]] = []

    def join(self, request: JoinRequest) -> JoinResponse:
        """Let a device in.

        Raises AuthError (token unknown, spent, expired, foreign), NameTakenError, ContentError (name or signing
        request wrong). The token is spent only when the device is in; the same key may ask again for a lost answer.
        """
        device = check_device_name(request.device)
        key = key_of_request(request.csr_pem, device)
        with self._one_at_a_time:
            try:
                pem, groups, changed = self._admit(request, key)
            except WrongSecretError:
                self._count_failure(request.token_id)
                raise
        self._devices.registry.replace(changed)
        if len(changed) > 1:
            self._devices.sign_revocation_list()
        if changed:
            self._tell_key(device, spki_of(key))
            self._bus.publish("device.joined", device=device, groups=list(groups))
        return JoinResponse(
            device, pem, self._authority.pem, self._tuf_root(), self._authority.server_id, groups
        )

    def renew(self, device: str, csr_pem: str) -> RenewResponse:
        """Return the next certificate of ``device``, over the new key in ``csr_pem``; older ones end after a day.

        Asked again with the latest key (its answer was lost), it returns the same certificate.

        Raises ContentError if the request is wrong, AuthError if the device is not active or renews too often.
        """
        key = key_of_request(csr_pem, device)
        with self._one_at_a_time, self._database.transaction() as session:
            row = session.get(DeviceRow, device)
            if row is None or row.status != "active":
                raise AuthError(f"{device!r} is not an active device")
            usable = usable_certificates(session, device, self._now())
            if len(usable) > 1 and usable[0].spki == spki_of(key):
                return RenewResponse(usable[0].pem, self._authority.pem)
            if any(spki_of(key) == old.spki for old in usable):
                raise AuthError("a renewal needs a new key")
            if len(usable) >= MAX_USABLE_CERTIFICATES:
                raise AuthError(
                    f"{device!r} renewed {len(usable)} times within a day; wait until older ones end"
                )
            for old in usable:
                old.usable_until = min(old.usable_until, self._now() + RENEWAL_OVERLAP)
            issued = self._issue(session, device, key)
        self._devices.registry.replace(known(row) for row in [*usable, issued])
        self._tell_key(device, issued.spki)
        return RenewResponse(issued.pem, self._authority.pem)

    def _admit(
        self, request: JoinRequest, key: ec.EllipticCurvePublicKey
    ) -> tuple[str, tuple[str, ...], list[KnownCertificate]]:
        device, pin = request.device, spki_pin(spki_of(key))
        with self._database.transaction() as session:
            token = session.get(JoinTokenRow, request.token_id)
            record = None if token is None else _record(token)
            verdict = judge_token(record, request.secret, device, pin, self._now())
            if token is None or record is None:
                raise WrongSecretError(request.token_id)
            if verdict == "repeat":
                return _certificate_of(session, device, spki_of(key), self._now()), tuple(token.groups), []
            row = session.get(DeviceRow, device)
            judge_name(record, device, taken=row is not None)
            ended = revoke_certificates(session, device, self._now())
            if row is None:
                row = DeviceRow(name=device)
                session.add(row)
            row.groups, row.status, row.joined_at = token.groups, "active", self._now()
            row.agent_version, row.revoked_at, row.revoked_why = request.agent_version, None, ""
            issued = self._issue(session, device, key)
            token.used_at, token.used_by, token.used_key = self._now(), device, pin
        return issued.pem, tuple(row.groups), [known(issued), *ended]

    def _issue(self, session: Session, device: str, key: ec.EllipticCurvePublicKey) -> CertificateRow:
        issued = self._authority.issuer.device(device, key, self._now().replace(tzinfo=UTC))
        return add_certificate(session, device, issued, spki_of(key), self._now())

    def _count_failure(self, token_id: str) -> None:
        failed = update(JoinTokenRow).where(JoinTokenRow.id == token_id)
        with self._database.transaction() as session:
            session.execute(failed.values(failures=JoinTokenRow.failures + 1))

    def _tell_key(self, device: str, spki: bytes) -> None:
        for hear in self.on_key:
            hear(device, spki)


def _certificate_of(session: Session, device: str, spki: bytes, now: datetime) -> str:
    for row in usable_certificates(session, device, now):
        if row.spki == spki:
            return row.pem
    raise AuthError("this token was used already, and its certificate has ended; make a new one")


def _record(row: JoinTokenRow) -> TokenRecord:
    return TokenRecord(
        row.id, row.secret_sha256, row.expires_at, row.device, row.used_by, row.used_key, row.failures
    )
