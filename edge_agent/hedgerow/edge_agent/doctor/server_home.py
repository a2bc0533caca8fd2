"""Checks of a server's folder by what lies in it; this part knows nothing of the server's code."""

from __future__ import annotations

import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hedgerow.edge_agent.doctor.finding import Finding
from hedgerow.shared.unreadable import UNREADABLE

ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_MAX_METADATA_BYTES: Final = 16 * 1024 * 1024


class _Signed(msgspec.Struct):
    expires: datetime
    version: int


class _Metadata(msgspec.Struct):
    signed: _Signed


def check_set_up(root: Path) -> Finding:
    """Find whether a server was set up in ``root``."""
    remedy = f"hedgerow server init --home {root}"
    try:
        with (root / "server.toml").open("rb") as file:
            tomllib.load(file)
    except FileNotFoundError:
        return Finding("server home", "wrong", f"{root}: no server was set up here", remedy)
    except OSError as error:
        return Finding(
            "server home", "wrong", f"{root / 'server.toml'}: {error.strerror}", "run as the server's user"
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return Finding(
            "server home", "wrong", f"{root / 'server.toml'}: not TOML: {error}", "correct the file"
        )
    return Finding("server home", "ok", f"{root} is set up")


def check_authority(root: Path, now_s: float | None = None) -> Finding:
    """Find whether the certificate authority can be read, belongs together, and is good for now."""
    name, folder = "authority", root / "pki"
    restore = "restore pki/ from a backup: without its key no device can join or renew"
    try:
        key_file = folder / "ca.key.pem"
        key = load_pem_private_key(key_file.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        certificate.verify_directly_issued_by(certificate)
        pair = key.public_key() == certificate.public_key()
        open_to_others = key_file.stat().st_mode & 0o077
    except OSError as error:
        return Finding(name, "wrong", f"{error.filename}: {error.strerror}", restore)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, InternalError) as error:
        return Finding(name, "wrong", f"{folder}: key or certificate is damaged: {error}", restore)
    if not pair:
        return Finding(name, "wrong", f"{folder}: ca.key.pem is not the key of ca.pem", restore)
    ends = certificate.not_valid_after_utc
    if ends.timestamp() <= (time.time() if now_s is None else now_s):
        return Finding(
            name, "wrong", f"its certificate expired {ends:%Y-%m-%d}", "is the clock right? make a new fleet"
        )
    if open_to_others:
        return Finding(name, "wrong", f"others may read {key_file}", f"chmod 600 {key_file}")
    return Finding(name, "ok", f"good until {ends:%Y-%m-%d}")


def check_tuf(root: Path, now_s: float | None = None) -> list[Finding]:
    """Find for each role of the update repository until when its newest metadata is signed."""
    now = datetime.fromtimestamp(time.time() if now_s is None else now_s, UTC)
    return [_check_role(root / "tuf" / "metadata", role, now) for role in ROLES]


def _check_role(folder: Path, role: str, now: datetime) -> Finding:
    name = f"signed {role}"
    path = _newest(folder, role)
    if path is None:
        return Finding(name, "wrong", f"{folder}: no {role} metadata", "restore tuf/ from a backup")
    try:
        with path.open("rb") as file:
            signed = msgspec.json.decode(file.read(_MAX_METADATA_BYTES), type=_Metadata).signed
    except (OSError, *UNREADABLE) as error:
        return Finding(name, "wrong", f"{path}: cannot be read: {error}", "restore tuf/ from a backup")
    until = f"version {signed.version} until {signed.expires:%Y-%m-%d %H:%M} UTC"
    if signed.expires <= now:
        remedy = "a running server signs it anew"
        if role in ("root", "targets"):
            remedy += f"; its key must be in {folder.parent.parent / 'secrets'}"
        return Finding(name, "wrong", f"expired: {until}; devices refuse updates", remedy)
    return Finding(name, "ok", until)


def _newest(folder: Path, role: str) -> Path | None:
    if role == "timestamp":
        path = folder / "timestamp.json"
        return path if path.exists() else None
    versions = [path for path in folder.glob(f"*.{role}.json") if path.name.split(".")[0].isdigit()]
    return max(versions, key=lambda path: int(path.name.split(".")[0]), default=None)
