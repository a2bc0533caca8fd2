"""The devices of the fleet: who is at the other end of a connection, who there is, whom to shut out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from sqlalchemy import select

from hedgerow.server.bus import Bus
from hedgerow.server.fleet.certificates import (
    known,
    revoke_certificates,
    revoked_serials,
    usable_certificates,
)
from hedgerow.server.fleet.registry import CertificateRegistry
from hedgerow.server.fleet.tables import CertificateRow, DeviceRow
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.trust import Peer
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import AuthError, ConfigError


class Device(msgspec.Struct, frozen=True):
    """A device as the rest of the server sees it; ``status`` is ``active`` or ``revoked``."""

    name: str
    groups: tuple[str, ...]
    status: str
    joined_at: datetime
    agent_version: str
    revoked_at: datetime | None = None
    revoked_why: str = ""


class Devices:
    """Knows the devices. What blocks on the database says so: call it from a thread.

    ``on_revoked`` hears the name of a device that was shut out, in the thread of the caller.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        authority: CertificateAuthority,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._bus = bus
        self._authority = authority
        self._now = now
        self._signing = threading.Lock()
        self.registry = CertificateRegistry(authority.certificate, lambda: self._now().replace(tzinfo=UTC))
        self.on_revoked: list[Callable[[str], None]] = []

    def load(self) -> None:
        """Fill the registry from the database; once, at start. Blocks."""
        with self._database.transaction() as session:
            rows = session.scalars(select(CertificateRow).where(CertificateRow.not_after > self._now())).all()
        self.registry.replace(known(row) for row in rows)
        self.sign_revocation_list()

    def device_of(self, der: bytes) -> str:
        """Return the device that presents the certificate ``der``. Any thread, no disk. Raises AuthError with why."""
        return self.registry.identify(der).device

    def identify(self, der: bytes) -> Peer:
        """Return device and serial of the certificate ``der``. Any thread, no disk. Raises AuthError with why."""
        return self.registry.identify(der)

    def is_active(self, device: str, serial: int) -> bool:
        """Tell whether a connected device may still be served; for each request. Any thread, no disk."""
        try:
            self.registry.check(Peer(device, serial))
        except AuthError:
            return False
        return True

    def get(self, device: str) -> Device | None:
        """Return one device, or None if it never joined. Blocks."""
        with self._database.transaction() as session:
            row = session.get(DeviceRow, device)
            return None if row is None else _device(row)

    def all(self, *, active_only: bool = False) -> list[Device]:
        """Return the devices by name. Blocks."""
        query = select(DeviceRow).order_by(DeviceRow.name)
        if active_only:
            query = query.where(DeviceRow.status == "active")
        with self._database.transaction() as session:
            return [_device(row) for row in session.scalars(query)]

    def public_keys(self, device: str) -> tuple[bytes, ...]:
        """Return the keys a device may use now, newest first, as DER SubjectPublicKeyInfo. Blocks."""
        with self._database.transaction() as session:
            return tuple(row.spki for row in usable_certificates(session, device, self._now()))

    def revoke(self, device: str, why: str) -> None:
        """Shut a device out, at once also on its live connections. Blocks.

        Raises ConfigError if there is no such device.
        """
        with self._database.transaction() as session:
            row = session.get(DeviceRow, device)
            if row is None:
                raise ConfigError(f"no device named {device[:63]!r} is in the fleet")
            row.status, row.revoked_at, row.revoked_why = "revoked", self._now(), why[:1000]
            ended = revoke_certificates(session, device, self._now())
        self.registry.replace(ended)
        self.sign_revocation_list()
        for hear in self.on_revoked:
            hear(device)
        self._bus.publish("device.revoked", device=device, why=why[:1000])

    def sign_revocation_list(self) -> None:
        """Write the list of revoked certificates afresh, for brokers that read it as a file. Blocks."""
        with self._signing:
            with self._database.transaction() as session:
                revoked = revoked_serials(session, self._now())
            self._authority.write_revocation_list(revoked, self._now().replace(tzinfo=UTC))


def _device(row: DeviceRow) -> Device:
    return Device(
        row.name,
        tuple(row.groups),
        row.status,
        row.joined_at,
        row.agent_version,
        row.revoked_at,
        row.revoked_why,
    )
