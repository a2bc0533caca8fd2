"""What a device fitted on its own samples, kept as small JSON files beside the slots; it never leaves the device."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from hedgerow.shared import limits
from hedgerow.shared.unreadable import UNREADABLE

log = logging.getLogger(__name__)
T = TypeVar("T", bound=msgspec.Struct)

MAX_BYTES = 4 * limits.MIB
KEPT = 4


class FittedFile(Generic[T]):
    """One fitted value. ``key`` says what it was fitted for; a file with another key counts as none."""

    def __init__(self, path: Path, key: str, kind: type[T]) -> None:
        self._path = path
        self._key = key
        # Made here, by one thread: two that meet a Struct for the first time at once crash msgspec.
        self._decoder = msgspec.json.Decoder(kind)

    def read(self) -> T | None:
        """Return the value, None if there is none that fits; a damaged file is logged and counts as none."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            held = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            if len(data) > MAX_BYTES or msgspec.json.decode(held["key"], type=str) != self._key:
                return None
            return self._decoder.decode(held["fitted"])
        except FileNotFoundError:
            return None
        except (OSError, KeyError, *UNREADABLE) as error:
            log.warning("%s cannot be used, fitting anew: %s", self._path, error)
            return None

    def write(self, value: T) -> None:
        """Keep the value, whole or not at all. A disk that refuses is logged: the device then fits anew after a restart."""
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode({"key": self._key, "fitted": value}))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            log.warning("%s cannot be written: %s", self._path, error.strerror)


def prune(folder: Path, pattern: str) -> None:
    """Remove all but the ``KEPT`` newest files that match."""
    try:
        files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: old fitted files stay: %s", folder, error.strerror)
