"""The table of jobs with their progress: what a restarted server resumes from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from hedgerow.server.store.database import Base


class JobRow(Base):
    """One job. ``number`` is its place in the queue; ``spec`` the submitted table as JSON text.

    The current model lies inline when small, else in the blob ``model_sha256``; ``rounds_done`` counts committed rounds.
    """

    __tablename__ = "jobs"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(128), unique=True)
    name: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    spec: Mapped[str] = mapped_column(Text)
    submitted_by: Mapped[str] = mapped_column(String(128), default="")
    recipe_hash: Mapped[str] = mapped_column(String(64))
    n_parameters: Mapped[int] = mapped_column(Integer)
    submitted_at: Mapped[datetime] = mapped_column(DateTime)
    started_at: Mapped[datetime | None] = mapped_column(DateTime)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime)
    rounds_done: Mapped[int] = mapped_column(Integer, default=0)
    model_sha256: Mapped[str] = mapped_column(String(64), default="")
    model_inline: Mapped[bytes | None] = mapped_column(LargeBinary)
    state_sha256: Mapped[str] = mapped_column(String(64), default="")
    initial_scores: Mapped[dict[str, float]] = mapped_column(JSON, default=dict)
    result: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
