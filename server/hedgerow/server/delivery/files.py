"""Puts large files that never change into the repository without a second copy where the disk can share them."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from hedgerow.shared.errors import StorageError
from hedgerow.shared.files import flush_folder, write_atomically


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
        flush_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            write_atomically(path, source.read_bytes())
            return
        raise StorageError(f"{path}: cannot link {source}: {error.strerror}") from error
