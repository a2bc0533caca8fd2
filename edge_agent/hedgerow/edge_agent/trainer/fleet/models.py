"""The model of the round, fetched once: kept in memory under its hash until another one comes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from hedgerow.shared.errors import IntegrityError


class ModelCache:
    """Holds one model."""

    def __init__(self) -> None:
        self._sha256 = ""
        self._model: bytes | bytearray = b""

    def get(self, sha256: str, fetch: Callable[[], bytes | bytearray]) -> bytes | bytearray:
        """Return the model of that hash, fetching it if it is not the one held.

        Raises IntegrityError if what was fetched has another hash.
        """
        if sha256 != self._sha256:
            self._sha256, self._model = "", b""
            model = fetch()
            found = hashlib.sha256(model).hexdigest()
            if found != sha256:
                raise IntegrityError(f"model {sha256[:12]}: the server sent {found[:12]}")
            self._sha256, self._model = sha256, model
        return self._model
