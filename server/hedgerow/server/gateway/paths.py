"""What a device may reach: which paths, with or without a certificate, and how large a body. Pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp

from hedgerow.shared import limits

ALLOWED_PREFIXES = ("/v1/device/", "/v1/fleet/")
OPEN_ROUTES = frozenset({("GET", "/v1/device/ca"), ("POST", "/v1/device/join")})


@dataclass(frozen=True)
class Mount:
    """An app for every path that starts with ``prefix`` (or is it), with the largest body it is sent."""

    prefix: str
    app: ASGIApp
    max_body_bytes: int = limits.MAX_CONTROL_BODY_BYTES


FLEET_BODY_BYTES: dict[str, int] = {
    "/v1/fleet/push-object": 8 * limits.MIB,
    "/v1/fleet/push-messages": limits.MIB,
}


def max_body_bytes(path: str, mount: Mount) -> int:
    """Return how many bytes of body a request to ``path`` may have."""
    if path.startswith("/v1/fleet/"):
        return FLEET_BODY_BYTES.get(path, limits.MAX_CONTROL_BODY_BYTES)
    return mount.max_body_bytes


def is_allowed(path: str) -> bool:
    """Whether the gateway serves ``path`` at all; a path with dot segments or doubled slashes never is."""
    plain = "//" not in path and "/./" not in path and "/../" not in path and not path.endswith(("/.", "/.."))
    return plain and path.startswith(ALLOWED_PREFIXES)


def is_open(method: str, path: str) -> bool:
    """Whether ``path`` is served without a certificate."""
    return (method, path) in OPEN_ROUTES


def find(mounts: Sequence[Mount], path: str) -> Mount | None:
    """Return the mount with the longest prefix that fits ``path``."""
    fitting = [mount for mount in mounts if path.startswith(mount.prefix)]
    return max(fitting, key=lambda mount: len(mount.prefix), default=None)
