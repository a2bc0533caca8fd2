"""The slots' disk: emptying a slot, and reading one back against its record."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import TypeVar

import msgspec

from hedgerow.edge_agent.slots.record import MAX_RECORD_BYTES, Installed, InstalledFile, decode_record
from hedgerow.shared.errors import ContentError, IntegrityError, StorageError
from hedgerow.shared.files import flush_folder

RECORD = "installed.json"
_CHUNK_BYTES = 1 << 20
T = TypeVar("T", bound=msgspec.Struct)


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left in ``folder``."""
    for leftover in folder.glob(".*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def empty_slot(slot: Path) -> None:
    """Delete a slot, its record first, so that a crash on the way leaves a slot that counts as empty."""
    try:
        (slot / RECORD).unlink(missing_ok=True)
        if slot.is_dir():
            flush_folder(slot)
            shutil.rmtree(slot)
    except OSError as error:
        raise StorageError(f"{slot}: cannot empty the slot: {error.strerror}") from error


def read_record(path: Path, kind: type[T]) -> T | None:
    """Return the record at ``path``; None if there is none. Raises ContentError if it is damaged, StorageError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror}") from error
    return decode_record(data, kind)


def verify_slot(slot: Path, installed: Installed) -> None:
    """Raise IntegrityError unless every file of the slot is what was installed. Reads all of it once."""
    for name, expected in installed.files.items():
        if "/" in name or name.startswith("."):
            raise IntegrityError(f"{slot}: the record names a file {name[:80]!r} outside the slot")
        found = describe_file(slot / name)
        if found != expected:
            raise IntegrityError(f"{slot / name}: size or SHA-256 is not what was installed")


def describe_file(path: Path) -> InstalledFile:
    """Return a file's size and hash. Raises IntegrityError if it is missing or cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_CHUNK_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise IntegrityError(f"{path}: cannot read: {error.strerror}") from error
    return InstalledFile(size, digest.hexdigest())


def slot_fault(slot: Path) -> tuple[Installed | None, str]:
    """Return the slot's record if its files are intact, and else None with the reason."""
    try:
        installed = read_record(slot / RECORD, Installed)
        if installed is None:
            return None, "empty"
        verify_slot(slot, installed)
    except (ContentError, StorageError) as error:
        return None, str(error)
    return installed, ""
