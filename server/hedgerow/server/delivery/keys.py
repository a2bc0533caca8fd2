"""The signing keys of the TUF roles on disk: one private PEM file a key, readable by the server's user alone.

The root key is needed only to make the repository, to change keys and to renew the root: an operator may keep
``root.*.pem`` elsewhere and put it back for those moments. The three other keys sign while the server runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from hedgerow.shared.errors import StorageError
from hedgerow.shared.files import flush_folder

ROLES = ("root", "targets", "snapshot", "timestamp")
MAX_KEY_FILE_BYTES = 16 * 1024


class KeyFolder:
    """Keeps each role's private keys as ``<role>.<key id>.pem``, mode 0600 in a folder of mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, role: str) -> CryptoSigner:
        """Make an Ed25519 key for ``role``, store it and return its signer. Raises StorageError."""
        signer = CryptoSigner.generate_ed25519()
        path = self.folder / f"{role}.{signer.public_key.keyid}.pem"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(signer.private_bytes)
                file.flush()
                os.fsync(file.fileno())
            flush_folder(self.folder)
        except OSError as error:
            raise StorageError(f"{path}: cannot store the key: {error.strerror}") from error
        return signer

    def signers(self, role: str, key_ids: Iterable[str]) -> list[CryptoSigner]:
        """Return the signers here of those ``key_ids`` that the root trusts for ``role``; may be empty."""
        paths = (self.folder / f"{role}.{key_id}.pem" for key_id in key_ids)
        return [_load(path) for path in paths if path.is_file()]

    def forget(self, role: str, key_id: str) -> None:
        """Delete a private key that is no longer trusted."""
        (self.folder / f"{role}.{key_id}.pem").unlink(missing_ok=True)


def _load(path: Path) -> CryptoSigner:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise StorageError(f"{path}: others may read this key (mode {mode & 0o777:o}); chmod 600 it")
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_FILE_BYTES)
        signer = CryptoSigner(load_pem_private_key(pem, None))
    except OSError as error:
        raise StorageError(f"{path}: cannot read the key: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        raise StorageError(f"{path}: not a private key that can sign: {error}") from error
    if signer.public_key.keyid not in path.name:
        raise StorageError(f"{path}: the key inside is another one; restore it from a backup")
    return signer
