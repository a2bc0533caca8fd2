"""What the registry tells about models, as values for the command line, the API and other parts."""

from __future__ import annotations

from datetime import datetime

import msgspec

from hedgerow.shared.bundle import Lineage, PrivacyReport


class ModelVersion(msgspec.Struct, frozen=True):
    """One registered bundle; ``manifest_sha256`` is its identity. ``registered`` is UTC without zone."""

    model: str
    version: int
    manifest_sha256: str
    size_bytes: int
    task: str
    lineage: Lineage
    privacy: PrivacyReport
    registered: datetime
    aliases: tuple[str, ...] = ()
    yanked: datetime | None = None
    yank_reason: str = ""


class ModelSummary(msgspec.Struct, frozen=True):
    """One model name: its newest version and what its aliases stand for."""

    model: str
    latest: int | None
    champion: int | None
    previous: int | None
    versions: int
    created: datetime
