"""May this clock be believed? An expired signature looks valid to a clock that stands in the past."""

from __future__ import annotations

from hedgerow.edge_agent.clock import TOLERANCE_US

# No build of Hedgerow is older than this: 2026-01-01T00:00:00Z.
FLOOR_US = 1_767_225_600_000_000


def is_behind(now_us: int, last_known_us: int) -> bool:
    """Tell whether a clock that says ``now_us`` stands before the last known time, or before there was a Hedgerow."""
    return now_us + TOLERANCE_US < max(last_known_us, FLOOR_US)
