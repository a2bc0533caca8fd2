"""Reads a bundle folder and says whether it may be registered: every hash, every size, every gate check."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hedgerow.shared import limits
from hedgerow.shared.bundle import Artefact, Manifest, check_artefact, decode_manifest
from hedgerow.shared.errors import ContentError, IntegrityError, StorageError

MANIFEST = "manifest.json"
MAX_ARTEFACTS = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """Return the folder's manifest and its bytes.

    Raises StorageError if it cannot be read, ContentError if it is over-size, malformed or not registrable.
    """
    data = read_bounded(folder / MANIFEST, limits.MAX_MANIFEST_BYTES)
    manifest = decode_manifest(data)
    check_registrable(manifest)
    return manifest, data


def check_name(model: str) -> None:
    """Raise ContentError unless ``model`` is a name of at most 63 characters of a-z, 0-9 and ``-``."""
    if not _NAME.fullmatch(model):
        raise ContentError(f"model name {model[:80]!r}: use a-z, 0-9 and -, at most 63 characters")


def check_registrable(manifest: Manifest) -> None:
    """Raise ContentError with the reason unless the manifest is one that devices could be given."""
    check_name(manifest.model)
    if manifest.version < 1:
        raise ContentError(f"model {manifest.model}: version {manifest.version}; versions start at 1")
    names = [artefact.file for artefact in manifest.artefacts]
    if not 1 <= len(names) <= MAX_ARTEFACTS:
        raise ContentError(
            f"model {manifest.model}: {len(names)} artefacts; 1 to {MAX_ARTEFACTS} are allowed"
        )
    if len(set(names)) != len(names) or MANIFEST in names:
        raise ContentError(f"model {manifest.model}: two artefacts share a name, or one is called {MANIFEST}")
    failed = [check for check in manifest.gate if not check.passed]
    if failed:
        told = "; ".join(f"{check.name} {check.value:g} (limit {check.limit:g})" for check in failed)
        raise ContentError(f"model {manifest.model} version {manifest.version}: gate not passed: {told}")


def read_artefacts(folder: Path, manifest: Manifest) -> Iterator[tuple[Artefact, bytes]]:
    """Yield each artefact with its verified bytes, one in memory at a time.

    Raises IntegrityError where size or hash differs from the manifest, StorageError where a file is missing.
    """
    for artefact in manifest.artefacts:
        data = read_bounded(folder / artefact.file, artefact.size_bytes)
        check_artefact(artefact, data)
        yield artefact, data


def check_file(path: Path, artefact: Artefact) -> None:
    """Raise IntegrityError unless the file at ``path`` is the artefact; StorageError if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror}") from error
    if (size, digest) != (artefact.size_bytes, artefact.sha256):
        raise IntegrityError(f"artefact {artefact.file}: size or SHA-256 differs from the manifest")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes, never more than ``max_bytes``.

    Raises IntegrityError if it is longer, StorageError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise IntegrityError(f"{path}: longer than the {max_bytes} bytes allowed")
    return data
