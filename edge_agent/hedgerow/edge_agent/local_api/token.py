"""The token of the local API: made once, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, StorageError


def load_or_make_token(path: Path) -> str:
    """Return the token at ``path``, making it with mode 0600 where there is none.

    Raises AuthError if others may read it, StorageError if it cannot be read or written.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _load(path)
        token = secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise StorageError(f"{path}: the token cannot be kept there: {error.strerror}") from error
    return token


def _load(path: Path) -> str:
    with path.open() as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise AuthError(
                f"{path}: others may read this token; run: chmod 600 {path}, or remove it to get a new one"
            )
        token = file.read(limits.MAX_TOKEN_BYTES).strip()
    if len(token) < 20:
        raise AuthError(f"{path}: holds no usable token; remove the file to get a new one")
    return token
