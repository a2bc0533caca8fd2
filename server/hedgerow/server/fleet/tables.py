"""Tables of the fleet. Documents are JSON of the shared structs; times are UTC without zone."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hedgerow.server.store.database import Base

# SQLite counts up only a primary key declared INTEGER.
_Counter = BigInteger().with_variant(Integer, "sqlite")


class DeviceRow(Base):
    """A device that joined; ``status`` is ``active`` or ``revoked``."""

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    groups: Mapped[list[str]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16), index=True)
    joined_at: Mapped[datetime]
    agent_version: Mapped[str] = mapped_column(String(128), default="")
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_why: Mapped[str] = mapped_column(String(1000), default="")


class JoinTokenRow(Base):
    """A join token without its secret."""

    __tablename__ = "join_tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    groups: Mapped[list[str]] = mapped_column(JSON)
    device: Mapped[str | None] = mapped_column(String(63), default=None)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = mapped_column(default=None)
    used_by: Mapped[str | None] = mapped_column(String(63), default=None)
    used_key: Mapped[str | None] = mapped_column(String(64), default=None)
    failures: Mapped[int] = mapped_column(default=0)


class CertificateRow(Base):
    """A device certificate that was issued; ``usable_until`` moves to an earlier time when it is renewed."""

    __tablename__ = "certificates"

    serial: Mapped[str] = mapped_column(String(40), primary_key=True)
    device: Mapped[str] = mapped_column(String(63), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    spki: Mapped[bytes] = mapped_column(LargeBinary)
    pem: Mapped[str]
    issued_at: Mapped[datetime]
    not_after: Mapped[datetime]
    usable_until: Mapped[datetime]
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class HeartbeatRow(Base):
    """The latest heartbeat of a device that was written down; fresher ones are in memory."""

    __tablename__ = "heartbeats"

    device: Mapped[str] = mapped_column(String(63), primary_key=True)
    received_at: Mapped[datetime]
    document: Mapped[bytes] = mapped_column(LargeBinary)


class DesiredRow(Base):
    """What the server wants of a device."""

    __tablename__ = "desired"

    device: Mapped[str] = mapped_column(String(63), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[bytes] = mapped_column(LargeBinary)


class EventRow(Base):
    """An event from a device's outbox, once, whatever was sent twice."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("device", "epoch", "sequence"),)

    id: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    device: Mapped[str] = mapped_column(String(63), index=True)
    epoch: Mapped[str] = mapped_column(String(32))
    sequence: Mapped[int] = mapped_column(BigInteger)
    at_us: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[datetime]
    severity: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(32), index=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class EventMarkRow(Base):
    """Up to where a device's events of one epoch are here; outlives the events, so that none counts twice."""

    __tablename__ = "event_marks"

    device: Mapped[str] = mapped_column(String(63), primary_key=True)
    epoch: Mapped[str] = mapped_column(String(32), primary_key=True)
    up_to: Mapped[int] = mapped_column(BigInteger)
