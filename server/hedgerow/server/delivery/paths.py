"""Names inside the TUF repository. Only what matches these patterns is ever opened for a device."""

from __future__ import annotations

import re

MANIFEST = "manifest.json"
_METADATA = re.compile(r"timestamp\.json|[1-9][0-9]{0,8}\.(?:root|snapshot|targets)\.json")
_TARGET = re.compile(
    r"bundles/[a-z0-9][a-z0-9-]{0,62}/[1-9][0-9]{0,8}/[0-9a-f]{64}\.[a-z0-9][a-z0-9._-]{0,62}"
)


def is_metadata_name(name: str) -> bool:
    """Tell whether ``name`` is a metadata file that devices fetch."""
    return _METADATA.fullmatch(name) is not None


def is_target_path(path: str) -> bool:
    """Tell whether ``path`` names a target file on disk, hash prefix included."""
    return _TARGET.fullmatch(path) is not None


def bundle_prefix(model: str, version: int) -> str:
    """Return what all target names of one bundle start with."""
    return f"bundles/{model}/{version}/"


def disk_path(target: str, sha256: str) -> str:
    """Return where a target's bytes lie under ``targets/`` (consistent snapshots: the hash before the name)."""
    folder, _, name = target.rpartition("/")
    return f"{folder}/{sha256}.{name}"
