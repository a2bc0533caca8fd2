"""The app bundle (FAB) that stock SuperNodes fetch before they answer; our own trainers never see one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from flwr.cli.config_utils import get_fab_metadata

from hedgerow.shared.errors import ConfigError

MAX_FAB_BYTES = 10 * 1024 * 1024


class FabInfo(msgspec.Struct, frozen=True):
    """A bundle of a stock ClientApp, with the identity Flower knows it by."""

    fab_id: str
    version: str
    sha256: str
    content: bytes


def read_fab(path: Path) -> FabInfo:
    """Read a bundle that ``flwr build`` made. Raises ConfigError if it is none, or beyond 10 MiB."""
    if path.stat().st_size > MAX_FAB_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FAB_BYTES} bytes")
    content = path.read_bytes()
    try:
        fab_id, version = get_fab_metadata(content)
    except Exception as error:  # Flower raises whatever zip, TOML and its own checks raise
        raise ConfigError(f"{path}: not a Flower app bundle: {error}") from error
    return FabInfo(fab_id, version, hashlib.sha256(content).hexdigest(), content)
