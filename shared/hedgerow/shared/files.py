"""Writing files so that a crash or a full disk leaves either the old content or the new, never a part."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from hedgerow.shared.errors import StorageError


def write_atomically(path: Path, data: bytes | bytearray, mode: int = 0o644) -> None:
    """Replace ``path`` with ``data``, flushed to disk first; folders are made, readable by their owner alone.

    Raises StorageError naming the path.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error


def point_to(link: Path, target: Path) -> None:
    """Make ``link`` a symbolic link to ``target``, relative, by atomic rename. Raises StorageError naming the link."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    try:
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)
        flush_folder(link.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"{link}: cannot be switched: {error.strerror}") from error


def flush_folder(folder: Path) -> None:
    """Make the folder's entries durable: a rename survives a power cut only once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
