"""The last known time: a record that only moves forward, so that a clock in 1970 can neither refresh nor install.

An expired signature looks valid to a clock that stands in the past; a device therefore trusts its clock only if it
is not behind the newest time it ever saw.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hedgerow.edge_agent.slots.disk import read_record, write_durably
from hedgerow.edge_agent.slots.record import encode_record
from hedgerow.shared.errors import ContentError

# No build of Hedgerow is older than this: 2026-01-01T00:00:00Z.
FLOOR_US = 1_767_225_600_000_000
# Time synchronisation steps a clock back by moments; nobody gains anything by minutes.
SLACK_US = 5 * 60 * 1_000_000


class KnownTime(msgspec.Struct, frozen=True):
    """Microseconds since 1970 in UTC."""

    last_known_us: int


def is_behind(now_us: int, last_known_us: int) -> bool:
    """Tell whether a clock that says ``now_us`` stands in the past."""
    return now_us + SLACK_US < max(last_known_us, FLOOR_US)


def read_known(path: Path) -> int:
    """Return the last known time; the floor if the record is missing or damaged. Raises StorageError."""
    try:
        known = read_record(path, KnownTime)
    except ContentError:
        known = None
    return max(FLOOR_US, 0 if known is None else known.last_known_us)


def advance(path: Path, now_us: int) -> None:
    """Move the record forward to ``now_us``; never back. Raises StorageError."""
    if now_us > read_known(path):
        write_durably(path, encode_record(KnownTime(now_us)))
