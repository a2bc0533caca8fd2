"""Where a job's current model lies: inline in its row when small, else in a blob that is there before the row says so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hedgerow.server.store.blobs import Blobs
from hedgerow.shared import limits
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.packing import Vector


class Stored(NamedTuple):
    """A model's hash, and its bytes if they belong in the row."""

    sha256: str
    inline: bytes | None


def model_bytes(model: Vector) -> memoryview:
    """Return the model's bytes, float32 little endian, without a copy where it already is so."""
    return np.ascontiguousarray(model, "<f4").view(np.uint8).data


class ModelStore:
    """Keeps models of ``n`` float32 values, little endian. The blobs' folder is this store's alone."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def put(self, model: Vector) -> Stored:
        """Store ``model``; when this returns, it is on the disk or will be with its row.

        Raises StorageError if the disk refuses.
        """
        data = model_bytes(model)
        if data.nbytes <= limits.MAX_INLINE_MODEL_BYTES:
            return Stored(sha256_hex(data), data.tobytes())
        return Stored(self._blobs.put(data), None)

    def get(self, stored: Stored) -> Vector:
        """Return the model. Raises StorageError if it is missing, IntegrityError if it was changed."""
        data = stored.inline if stored.inline is not None else self._blobs.get(stored.sha256)
        return np.frombuffer(data, "<f4")

    def put_state(self, state: bytes) -> str:
        """Store an algorithm's state and return its hash; empty for an empty state."""
        return self._blobs.put(state) if state else ""

    def get_state(self, sha256: str) -> bytes:
        """Return an algorithm's state. Raises as ``get``."""
        return self._blobs.get(sha256) if sha256 else b""

    def sweep(self, wanted: frozenset[str]) -> int:
        """Remove blobs that no job needs (a crash or an older round left them) and return how many."""
        removed = 0
        for path in self._blobs.root.glob("??/*"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def has(self, sha256: str) -> bool:
        """Tell whether there is a blob of this hash (inline models have none)."""
        return bool(sha256) and self._blobs.has(sha256)

    def remove(self, sha256: str) -> None:
        """Remove one blob, if it is there."""
        self._blobs.path(sha256).unlink(missing_ok=True)
