"""Decides which events of a batch are new and up to where a device's count is complete. Pure.

A device numbers its events from 1 in each epoch and sends them in order, from the lowest that was not acknowledged.
What it had to drop stands in the sequence as a gap record that names its range. A batch that starts beyond the next
number expected means that the device no longer has those between (an old server database came back, say): they
are given up, as a gap that the server notes itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import Event, GapRecord

MAX_SEQUENCE = 2**53
_MAX_TIME_US = 2**62


class Counted(msgspec.Struct, frozen=True):
    """The events of a batch that are new, the mark after them, and the range that nobody has any more, if any."""

    new: tuple[Event, ...]
    up_to: int
    missing: tuple[int, int] | None = None


def count_batch(events: Sequence[Event], up_to: int) -> Counted:
    """Return what of ``events`` is new, where everything up to sequence ``up_to`` is here already.

    Raises ContentError if a number is out of bounds or the batch is not contiguous within itself.
    """
    _check(events)
    new = tuple(event for event in events if event.sequence > up_to)
    if not new:
        return Counted((), up_to)
    first = _first_covered(new[0])
    missing = (up_to + 1, first - 1) if first > up_to + 1 else None
    return Counted(new, new[-1].sequence, missing)


def _check(events: Sequence[Event]) -> None:
    before: int | None = None
    for event in events:
        first = _first_covered(event)
        if not 1 <= first <= event.sequence < MAX_SEQUENCE or abs(event.at_us) > _MAX_TIME_US:
            raise ContentError(f"event {event.sequence}: its sequence, range or time is out of bounds")
        if before is not None and first != before + 1:
            raise ContentError(f"event {event.sequence}: the batch is not contiguous after {before}")
        before = event.sequence


def _first_covered(event: Event) -> int:
    if isinstance(event.body, GapRecord) and event.body.last == event.sequence:
        return event.body.first
    return event.sequence
