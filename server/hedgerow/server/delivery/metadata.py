"""The next TUF metadata from the present one. Pure: no disk, no clock, no keys.

Rules kept here: versions only grow; a published target never changes; snapshot names the targets metadata by
version, length and hash, timestamp the snapshot likewise, so that no mix of two publications verifies.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from datetime import datetime
from typing import Any

import msgspec
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from hedgerow.server.delivery.freshness import expiry
from hedgerow.server.delivery.paths import bundle_prefix
from hedgerow.shared.errors import ContentError


class TargetEntry(msgspec.Struct, frozen=True):
    """One file to sign: its name in the repository, what it must be, and what is signed beside it."""

    name: str
    length: int
    sha256: str
    custom: dict[str, Any]


def first_root(now: datetime) -> Root:
    """Return a root without keys."""
    return Root(version=1, expires=expiry("root", now), consistent_snapshot=True)


def renewed(signed: Any, role: str, now: datetime) -> Any:
    """Return a copy of ``signed`` with the next version and a fresh expiry."""
    fresh = deepcopy(signed)
    fresh.version += 1
    fresh.expires = expiry(role, now)
    return fresh


def with_targets(targets: Targets, entries: list[TargetEntry], now: datetime) -> Targets | None:
    """Return ``targets`` with ``entries`` added; None if all are there already.

    Raises ContentError if a name is published with other bytes: a version never changes.
    """
    fresh: Targets = renewed(targets, "targets", now)
    changed = False
    for entry in entries:
        known = fresh.targets.get(entry.name)
        if known is None:
            fresh.targets[entry.name] = TargetFile(
                entry.length, {"sha256": entry.sha256}, entry.name, {"custom": dict(entry.custom)}
            )
            changed = True
        elif known.length != entry.length or known.hashes != {"sha256": entry.sha256}:
            raise ContentError(f"target {entry.name} is published with other bytes; use a new version")
    return fresh if changed else None


def without_bundle(targets: Targets, model: str, version: int, now: datetime) -> Targets | None:
    """Return ``targets`` without one bundle's files; None if it has none."""
    prefix = bundle_prefix(model, version)
    if not any(name.startswith(prefix) for name in targets.targets):
        return None
    fresh: Targets = renewed(targets, "targets", now)
    fresh.targets = {name: file for name, file in fresh.targets.items() if not name.startswith(prefix)}
    return fresh


def with_rollback_allowed(targets: Targets, model: str, version: int, now: datetime) -> Targets | None:
    """Return ``targets`` with a signed leave to go back to one bundle; None if it has that already.

    Raises ContentError if the bundle is not published.
    """
    prefix = bundle_prefix(model, version)
    names = [name for name in targets.targets if name.startswith(prefix)]
    if not names:
        raise ContentError(f"model {model} version {version} is not published, so nobody can go back to it")
    if all(custom_of(targets.targets[name]).get("rollback_ok") is True for name in names):
        return None
    fresh: Targets = renewed(targets, "targets", now)
    for name in names:
        file = fresh.targets[name]
        file.unrecognized_fields["custom"] = {**custom_of(file), "rollback_ok": True}
    return fresh


def next_snapshot(snapshot: Snapshot, targets_version: int, targets_bytes: bytes, now: datetime) -> Snapshot:
    """Return the snapshot that names this targets metadata."""
    fresh: Snapshot = renewed(snapshot, "snapshot", now)
    fresh.meta["targets.json"] = _described(targets_version, targets_bytes)
    return fresh


def next_timestamp(
    timestamp: Timestamp, snapshot_version: int, snapshot_bytes: bytes, now: datetime
) -> Timestamp:
    """Return the timestamp that names this snapshot."""
    fresh: Timestamp = renewed(timestamp, "timestamp", now)
    fresh.snapshot_meta = _described(snapshot_version, snapshot_bytes)
    return fresh


def custom_of(file: TargetFile) -> dict[str, Any]:
    """Return what is signed beside a target."""
    custom = file.unrecognized_fields.get("custom")
    return custom if isinstance(custom, dict) else {}


def verified(data: bytes, role: str, root: Root) -> Metadata[Any]:
    """Return the metadata in ``data`` if the root's keys signed it. Raises tuf's RepositoryError."""
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    return metadata


def _described(version: int, data: bytes) -> MetaFile:
    return MetaFile(version=version, length=len(data), hashes={"sha256": hashlib.sha256(data).hexdigest()})
