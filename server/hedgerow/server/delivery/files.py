"""Writes that a crash leaves whole or undone: temporary file in the same folder, fsync, atomic rename."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from hedgerow.shared.errors import StorageError


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, replacing what is there. Raises StorageError; the old content then stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot write {len(data)} bytes: {error.strerror}") from error


def link_or_copy(source: Path, path: Path) -> None:
    """Make ``path`` the same content as ``source``, sharing its disk space where the file system can.

    ``source`` must never change. Raises StorageError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        temporary.replace(path)
        temporary.unlink(missing_ok=True)  # rename(2) does nothing where both are links to one file
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            write_atomically(path, source.read_bytes())
            return
        raise StorageError(f"{path}: cannot link {source}: {error.strerror}") from error


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
