"""What mapping and rules hand on: rows of readings, and refusals with one reason of a closed set."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Reason = Literal[
    "oversized",
    "malformed",
    "too-deep",
    "unknown-topic",
    "unknown-channel",
    "not-a-number",
    "wrong-shape",
    "bad-timestamp",
    "undated",
    "clock-skew",
    "time-jump",
    "out-of-range",
    "step",
    "missing",
    "duplicate",
    "out-of-order",
    "redelivered",
    "retained",
]

COUNTED_ONLY: Final[frozenset[str]] = frozenset(
    {"missing", "duplicate", "out-of-order", "redelivered", "retained", "time-jump"}
)
"""Reasons that are counted but keep no payload: the payload itself was fine."""


class Row(msgspec.Struct, frozen=True):
    """Readings of one instant: ``values`` pairs a channel's position with its value, in the profile's units.

    ``time_us`` is microseconds since 1970 in UTC.
    """

    time_us: int
    values: tuple[tuple[int, float], ...]


class Refusal(msgspec.Struct, frozen=True):
    """One reading, row or message that is not used, and why."""

    reason: Reason
    detail: str = ""


class Decoded(msgspec.Struct, frozen=True):
    """What one payload held."""

    rows: tuple[Row, ...] = ()
    refusals: tuple[Refusal, ...] = ()
