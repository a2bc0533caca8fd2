"""Tables of rounds and of what each device contributed to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Boolean, DateTime, Float, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from hedgerow.server.store.database import Base


class RoundRow(Base):
    """One round. ``planned`` is its reservation, ``committed`` its release; who was drawn is for admins only."""

    __tablename__ = "rounds"

    job_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    cohort: Mapped[str] = mapped_column(Text)
    planned_at: Mapped[datetime] = mapped_column(DateTime)
    committed_at: Mapped[datetime | None] = mapped_column(DateTime)
    duration_s: Mapped[float] = mapped_column(Float, default=0.0)
    drawn: Mapped[int] = mapped_column(Integer, default=0)
    replied: Mapped[int] = mapped_column(Integer, default=0)
    rejected: Mapped[int] = mapped_column(Integer, default=0)
    dropped: Mapped[int] = mapped_column(Integer, default=0)
    reasons: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)
    below_quorum: Mapped[bool] = mapped_column(Boolean, default=False)
    bytes_up: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_down: Mapped[int] = mapped_column(BigInteger, default=0)
    epsilon: Mapped[float | None] = mapped_column(Float)
    metrics: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)
    scores: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)
    model_sha256: Mapped[str] = mapped_column(String(64), default="")


class ContributionRow(Base):
    """One device's part in one exchange of a committed round; at most one by its key. For admins only.

    In jobs with privacy there is no count and no loss of a device in it: they are withheld, not hidden.
    """

    __tablename__ = "contributions"

    job_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True)
    exchange: Mapped[int] = mapped_column(Integer, primary_key=True)
    device: Mapped[str] = mapped_column(String(64), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(256), default="")
    n_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    n_samples: Mapped[int | None] = mapped_column(Integer)
    ledger_head: Mapped[str | None] = mapped_column(String(64))
    epsilon: Mapped[float | None] = mapped_column(Float)
    delta: Mapped[float | None] = mapped_column(Float)
