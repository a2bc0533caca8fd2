"""Writes a bundle folder whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hedgerow.shared.errors import StorageError


def write_folder(folder: str, files: Mapping[str, bytes]) -> int:
    """Write ``files`` as the new folder ``folder`` and return their bytes in all.

    They are written beside it, flushed, and appear with one rename. Raises StorageError if the folder exists or the
    disk does not take it; then nothing is left behind.
    """
    target = Path(folder)
    if target.exists():
        raise StorageError(f"{target}: exists already; a bundle is never written over")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise StorageError(f"{target.parent}: cannot be written: {error.strerror}") from error
    try:
        for name, data in files.items():
            with (work / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        work.chmod(0o755)
        work.rename(target)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise StorageError(f"{target}: cannot be written: {error.strerror}") from error
    return sum(len(data) for data in files.values())
