"""How long signatures hold and when each must be made again. Pure: values in, decisions out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

LIFETIME: Mapping[str, timedelta] = {
    "timestamp": timedelta(days=1),
    "snapshot": timedelta(days=7),
    "targets": timedelta(days=365),
    "root": timedelta(days=365),
}

# Sign again once less than this is left: half of the short ones, so that a server may be off for a night.
RENEW_BEFORE: Mapping[str, timedelta] = {
    "timestamp": timedelta(hours=12),
    "snapshot": timedelta(days=3, hours=12),
    "targets": timedelta(days=60),
    "root": timedelta(days=60),
}

# Signing a role anew changes what the roles below it must say.
_BELOW: Mapping[str, tuple[str, ...]] = {
    "root": (),
    "targets": ("snapshot", "timestamp"),
    "snapshot": ("timestamp",),
    "timestamp": (),
}


def resign_due(expires: Mapping[str, datetime], now: datetime) -> frozenset[str]:
    """Return the roles to sign again at ``now``, with those that must follow."""
    due = {role for role, at in expires.items() if at - now <= RENEW_BEFORE[role]}
    return frozenset(due | {below for role in due for below in _BELOW[role]})


def next_due(expires: Mapping[str, datetime]) -> datetime:
    """Return when the first role falls due."""
    return min(at - RENEW_BEFORE[role] for role, at in expires.items())


def expiry(role: str, now: datetime) -> datetime:
    """Return until when a signature made at ``now`` holds, in whole seconds as TUF writes them."""
    return (now + LIFETIME[role]).replace(microsecond=0)
