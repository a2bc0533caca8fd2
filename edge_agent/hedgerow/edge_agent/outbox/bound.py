"""Decides what an over-full outbox drops, and what stands in its place. Pure.

The oldest go first, and none that is critical while there is another; what was dropped leaves a gap record under its
own numbers, joined with gaps beside it, so that the sequence stays whole and the server learns what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hedgerow.shared.messages import Severity


class Entry(msgspec.Struct, frozen=True):
    """One row of the outbox, without its body: numbers it covers (inclusive), size, weight."""

    first: int
    last: int
    size: int
    severity: Severity
    gap: bool = False


def choose(entries: Sequence[Entry], *, over_bytes: int, over_events: int) -> list[Entry]:
    """Return the entries to drop, oldest first, so that at least ``over_bytes`` and ``over_events`` are freed.

    Gaps are never dropped (they are what remains). Returns all it may if even that is not enough.
    """
    chosen: list[Entry] = []
    freed_bytes = freed_events = 0
    for critical in (False, True):
        for entry in entries:
            if freed_bytes >= over_bytes and freed_events >= over_events:
                return sorted(chosen, key=lambda e: e.last)
            if not entry.gap and (entry.severity == "critical") == critical:
                chosen.append(entry)
                freed_bytes += entry.size
                freed_events += 1
    return sorted(chosen, key=lambda e: e.last)


def join_gaps(gaps: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of numbers (inclusive) with neighbours joined, in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(gaps):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
