"""The last ledger head of each device in each job."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Float, Integer, String
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
