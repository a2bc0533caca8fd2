"""What to believe about time: readings far from now, and jumps within a stream. Pure.

A single wild timestamp must neither empty the window (a jump forward) nor make all that follows look old (the way
back). So a jump is believed only when ``CONFIRMATIONS`` rows in a row agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from hedgerow.edge_agent.telemetry.reading import Refusal, Row
from hedgerow.shared.profile import ClockSpec, WindowSpec

CONFIRMATIONS: Final = 3
MIN_JUMP_US: Final = 60_000_000


class Timeline(msgspec.Struct, frozen=True):
    """What a row led to: ``rows`` to use now, whether the past ends before them, and what was dropped."""

    rows: tuple[Row, ...]
    anew: bool = False
    dropped: int = 0


class JumpFilter:
    """Holds rows back that are a jump away from the stream's clock until others confirm them."""

    def __init__(self, window: WindowSpec) -> None:
        self.jump_us = max(MIN_JUMP_US, window.length * window.period_ns // 1000)
        self.clock_us: int | None = None
        self._waiting: list[Row] = []

    def pass_on(self, row: Row) -> Timeline:
        """Return what ``row`` releases: itself, nothing yet, or the waiting rows of a confirmed jump."""
        if self.clock_us is None or abs(row.time_us - self.clock_us) <= self.jump_us:
            dropped = self.abandon()
            self.clock_us = row.time_us if self.clock_us is None else max(self.clock_us, row.time_us)
            return Timeline((row,), dropped=dropped)
        dropped = 0
        if self._waiting and abs(row.time_us - self._waiting[-1].time_us) > self.jump_us:
            dropped = self.abandon()
        self._waiting.append(row)
        if len(self._waiting) < CONFIRMATIONS:
            return Timeline((), dropped=dropped)
        rows, self._waiting = tuple(self._waiting), []
        self.clock_us = max(waiting.time_us for waiting in rows)
        return Timeline(rows, anew=True, dropped=dropped)

    @property
    def waiting(self) -> tuple[Row, ...]:
        """Rows held back until others confirm them."""
        return tuple(self._waiting)

    def abandon(self) -> int:
        """Drop the waiting rows and return how many they were."""
        dropped, self._waiting = len(self._waiting), []
        return dropped


def clock_trusted(now_us: int, clock: ClockSpec) -> bool:
    """Return whether the device's own clock has been set since it booted."""
    return now_us >= clock.trusted_after_s * 1e6


def judge_times(
    rows: Sequence[Row], dated: bool, now_us: int, clock: ClockSpec
) -> tuple[list[Row], list[Refusal]]:
    """Return the rows of one message that ``clock`` accepts at ``now_us``, and a refusal for each other.

    ``dated`` is whether the payload carried times of its own.
    """
    if not clock_trusted(now_us, clock):
        if dated or clock.undated == "keep":
            return list(rows), []
        return [], [Refusal("undated", "the device's clock is not set, and the payload has no time")] * len(
            rows
        )
    if clock.max_skew_s is None or not dated:
        return list(rows), []
    kept: list[Row] = []
    refusals: list[Refusal] = []
    for row in rows:
        skew_s = (row.time_us - now_us) / 1e6
        if abs(skew_s) <= clock.max_skew_s:
            kept.append(row)
        else:
            refusals.append(
                Refusal("clock-skew", f"{skew_s:+.1f} s from now; at most {clock.max_skew_s:g} s")
            )
    return kept, refusals
