"""The rollouts' tables: what was asked of the fleet, and how far each device is."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from hedgerow.server.store.database import Base


class RolloutRow(Base):
    """One order to the fleet to serve one version. The newest of a model that is not superseded is in force."""

    __tablename__ = "rollouts"
    __table_args__ = (Index("ix_rollouts_model_state", "model", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(String(63))
    version: Mapped[int]
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    started: Mapped[datetime]
    changed: Mapped[datetime]


class RolloutDeviceRow(Base):
    """One device's place in one rollout; ``deadline`` is when silence counts as failure."""

    __tablename__ = "rollout_devices"

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device: Mapped[str] = mapped_column(String(63), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(1000), default="")
    runtime: Mapped[str] = mapped_column(String(128), default="")
    precision: Mapped[str] = mapped_column(String(128), default="")
    deadline: Mapped[datetime]
    changed: Mapped[datetime]
