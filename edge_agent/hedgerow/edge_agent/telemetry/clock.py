"""What to believe about time: readings far from now, and jumps within a stream. Pure.

A single wild timestamp must neither empty the window (a jump forward) nor make all that follows look old (the way
back); and a publisher that comes back from an outage may send a new reading before the old ones it kept. So a jump is
believed only when ``CONFIRMATIONS`` rows in a row agree on it, and a row that came early waits for the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from hedgerow.edge_agent.telemetry.reading import Refusal, Row
from hedgerow.shared.profile import ClockSpec, WindowSpec

CONFIRMATIONS: Final = 3
MIN_JUMP_US: Final = 60_000_000
MIN_AHEAD_US: Final = 5_000_000
MAX_EARLY: Final = 16


class Timeline(msgspec.Struct, frozen=True):
    """What a row led to: ``rows`` to use now, whether the past ends before them, and what was dropped."""

    rows: tuple[Row, ...]
    anew: bool = False
    dropped: int = 0


class HeldBack(msgspec.Struct, frozen=True):
    """Rows not used yet: ``early`` ones that the stream may reach, and a ``streak`` that may become a jump."""

    early: tuple[Row, ...] = ()
    streak: tuple[Row, ...] = ()


class JumpFilter:
    """Holds rows back that are a jump away from the stream's clock until others confirm them, or the stream is there.

    Ahead, a jump is what no window spans anyway, and five seconds at least; back, a minute or a window's length.
    """

    def __init__(self, window: WindowSpec) -> None:
        period_us = window.period_ns / 1000
        self.ahead_us = max(MIN_AHEAD_US, round((window.max_hold_rows + window.late_rows + 1.5) * period_us))
        self.jump_us = max(MIN_JUMP_US, round(window.length * period_us))
        self.clock_us: int | None = None
        self._early: list[Row] = []
        self._streak: list[Row] = []

    @property
    def held_back(self) -> HeldBack:
        """What is not used yet."""
        return HeldBack(tuple(self._early), tuple(self._streak))

    def restore(self, clock_us: int | None, held_back: HeldBack) -> None:
        """Take up where another instance stopped."""
        self.clock_us = clock_us
        self._early, self._streak = list(held_back.early), list(held_back.streak)

    def pass_on(self, row: Row) -> Timeline:
        """Return what ``row`` releases: itself and early rows before it, nothing yet, or a confirmed jump."""
        if self.clock_us is None:
            self.clock_us = row.time_us
            return Timeline((row,))
        if -self.jump_us <= row.time_us - self.clock_us <= self.ahead_us:
            dropped = self._end_streak(self.clock_us)
            self.clock_us = max(self.clock_us, row.time_us)
            return Timeline((*self._take_early(0, row.time_us), row), dropped=dropped)
        return self._far(row, self.clock_us)

    def abandon(self) -> int:
        """Drop what is held back and return how many rows it was."""
        dropped = len(self._early) + len(self._streak)
        self._early, self._streak = [], []
        return dropped

    def _far(self, row: Row, clock_us: int) -> Timeline:
        dropped = 0
        if self._streak and abs(row.time_us - self._streak[-1].time_us) > self.jump_us:
            dropped = self._end_streak(clock_us)
        self._streak.append(row)
        if len(self._streak) < CONFIRMATIONS:
            return Timeline((), dropped=dropped)
        first_us = self._streak[0].time_us
        rows = (*self._take_early(first_us - self.jump_us, first_us), *self._streak)
        self._streak = []
        self.clock_us = max(one.time_us for one in rows)
        return Timeline(rows, anew=True, dropped=dropped)

    def _end_streak(self, clock_us: int) -> int:
        """Keep the streak's rows that lie ahead as early ones; return how many rows are dropped for good."""
        ahead = [row for row in self._streak if row.time_us > clock_us]
        kept = [*self._early, *ahead]
        dropped = len(self._streak) - len(ahead) + max(0, len(kept) - MAX_EARLY)
        self._early, self._streak = kept[-MAX_EARLY:], []
        return dropped

    def _take_early(self, from_us: int, to_us: int) -> list[Row]:
        if not self._early:
            return []
        due = [row for row in self._early if from_us <= row.time_us <= to_us]
        self._early = [row for row in self._early if not from_us <= row.time_us <= to_us]
        return sorted(due, key=lambda row: row.time_us)


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
