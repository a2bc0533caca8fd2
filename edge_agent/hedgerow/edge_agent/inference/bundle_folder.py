"""Reading a bundle folder: bounded, and every artefact that is used checked against the manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hedgerow.shared import limits
from hedgerow.shared.bundle import Artefact, Manifest, decode_manifest, sha256_hex
from hedgerow.shared.errors import ContentError, IntegrityError, StorageError

MANIFEST = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class BundleFolder:
    """A bundle on disk; ``identity`` is the SHA-256 of its manifest's bytes."""

    folder: Path
    manifest: Manifest
    identity: str

    def verified(self, artefact: Artefact) -> Path:
        """Return the artefact's path. Raises IntegrityError if it is missing or not what the manifest promises."""
        path = self.folder / artefact.file
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                digest = (
                    hashlib.file_digest(file, "sha256").hexdigest() if size == artefact.size_bytes else ""
                )
        except OSError as error:
            raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from error
        if digest != artefact.sha256:
            raise IntegrityError(f"{path}: size or SHA-256 differs from the manifest")
        return path


def read_bundle(folder: Path) -> BundleFolder:
    """Return the bundle in ``folder``. Raises StorageError if it cannot be read, ContentError if it is no bundle."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            data = file.read(limits.MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    manifest = decode_manifest(data)
    if manifest.schema != SCHEMA:
        raise ContentError(f"{path}: schema {manifest.schema}; this agent knows {SCHEMA}, update the agent")
    return BundleFolder(folder, manifest, sha256_hex(data))
