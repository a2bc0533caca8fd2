"""The last ledger head of each device in each job; and the server's own ledger of what it charges to populations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, DateTime, Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from hedgerow.server.store.database import Base


class LedgerHeadRow(Base):
    """A device's last committed claim in one job: the hash and length of its ledger file, the ε and δ that it states."""

    __tablename__ = "ledger_heads"

    job_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    device: Mapped[str] = mapped_column(String(64), primary_key=True)
    round: Mapped[int] = mapped_column(Integer)
    head: Mapped[str] = mapped_column(String(64))
    length: Mapped[int] = mapped_column(Integer)
    epsilon: Mapped[float] = mapped_column(Float)
    delta: Mapped[float] = mapped_column(Float)
    updated_at: Mapped[datetime] = mapped_column(DateTime)


class PrivacyAccountRow(Base):
    """One job of a central mode: its frozen population, its plan, what its devices had been charged before.

    Written once when the job begins and never changed; ``devices``, ``plan`` and ``earlier`` are JSON text.
    ``earlier_unprotected`` tells that other jobs had released something of these devices without device-level privacy.
    ``hash`` begins the chain that the charges go on with (``ledger.chain``).
    """

    __tablename__ = "privacy_accounts"

    job_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    mode: Mapped[str] = mapped_column(String(32))
    devices: Mapped[str] = mapped_column(Text)
    plan: Mapped[str] = mapped_column(Text)
    earlier: Mapped[str] = mapped_column(Text)
    earlier_unprotected: Mapped[bool] = mapped_column(Boolean)
    rounds: Mapped[int] = mapped_column(Integer)
    hash: Mapped[str] = mapped_column(String(64))
    opened_at: Mapped[datetime] = mapped_column(DateTime)


class PrivacyChargeRow(Base):
    """One round of such a job: ``reserved`` with its plan, ``charged`` in the transaction that makes its model public.

    ``epsilon`` is what the job's devices have been charged by then, earlier jobs included.
    """

    __tablename__ = "privacy_charges"

    job_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    epsilon: Mapped[float | None] = mapped_column(Float)
    model_sha256: Mapped[str] = mapped_column(String(64), default="")
    hash: Mapped[str] = mapped_column(String(64), default="")
    reserved_at: Mapped[datetime] = mapped_column(DateTime)
    charged_at: Mapped[datetime | None] = mapped_column(DateTime)
