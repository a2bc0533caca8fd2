"""Content-addressed files on disk: written once under their SHA-256, verified when read."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import IntegrityError, StorageError
from hedgerow.shared.files import flush_folder

_HEX = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A folder of immutable blobs. A blob exists whole or not at all: temporary file, fsync, atomic rename, fsync of its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes | memoryview) -> str:
        """Store ``data`` and return its SHA-256. Raises StorageError if the disk refuses."""
        digest = sha256_hex(data)
        target = self.path(digest)
        if target.exists():
            return digest
        temporary = target.with_name(f".{digest}.{secrets.token_hex(4)}")
        try:
            if not target.parent.exists():
                target.parent.mkdir(exist_ok=True)
                flush_folder(self.root)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            flush_folder(target.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(f"{self.root}: cannot store {len(data)} bytes: {error.strerror}") from error
        return digest

    def get(self, digest: str) -> bytes:
        """Return the blob. Raises StorageError if it is missing, IntegrityError if the disk changed it."""
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise StorageError(f"{self.root}: no blob {digest[:12]}…: {error.strerror}") from error
        if sha256_hex(data) != digest:
            raise IntegrityError(f"{self.root}: blob {digest[:12]}… is damaged")
        return data

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there."""
        return self.path(digest).exists()

    def path(self, digest: str) -> Path:
        """Return where the blob lies. Raises ValueError unless ``digest`` is 64 lower-case hex digits."""
        if not _HEX.fullmatch(digest):
            raise ValueError(f"not a SHA-256: {digest[:80]!r}")
        return self.root / digest[:2] / digest
