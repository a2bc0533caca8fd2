"""The registry's tables: names with their version counter, versions that never change, aliases that move."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from hedgerow.server.store.database import Base

NAME = String(63)
SHA256 = String(64)


class ModelRow(Base):
    """One model name; ``last_version`` is the highest number handed out, used or not."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    last_version: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime]


class ModelVersionRow(Base):
    """One registered bundle. Only ``yanked`` and ``yank_reason`` ever change."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("manifest_sha256"),)

    model: Mapped[str] = mapped_column(ForeignKey("models.name"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    manifest_sha256: Mapped[str] = mapped_column(SHA256)
    size_bytes: Mapped[int]
    task: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[str] = mapped_column(String(128))
    job_name: Mapped[str] = mapped_column(String(128))
    rounds: Mapped[int]
    recipe: Mapped[str] = mapped_column(String(128))
    recipe_hash: Mapped[str] = mapped_column(String(128))
    feature_set: Mapped[str] = mapped_column(String(128))
    profile: Mapped[str] = mapped_column(String(128))
    privacy_mode: Mapped[str] = mapped_column(String(32))
    epsilon: Mapped[float | None]
    delta: Mapped[float | None]
    registered: Mapped[datetime]
    yanked: Mapped[datetime | None]
    yank_reason: Mapped[str] = mapped_column(String(1000), default="")


class AliasRow(Base):
    """What ``champion`` and ``previous`` stand for; moved by compare-and-swap on ``version``."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["model_versions.model", "model_versions.version"]),
    )

    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    alias: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int]
    moved: Mapped[datetime]
