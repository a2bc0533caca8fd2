"""One stream of rows through clock, rules and windower: what live messages, files and a restart have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from hedgerow.edge_agent.telemetry.clock import HeldBack, JumpFilter
from hedgerow.edge_agent.telemetry.reading import Refusal, Row
from hedgerow.edge_agent.telemetry.rules import ReadingRules
from hedgerow.edge_agent.telemetry.windower import Window, Windower
from hedgerow.shared.profile import DeviceProfile


class Fed(msgspec.Struct, frozen=True):
    """What rows led to: windows that are due, refused readings, and the readings that were used.

    ``anew`` tells that the stream's clock was set anew: what was used before the first row of ``used`` is past.
    """

    windows: tuple[Window, ...]
    refusals: tuple[Refusal, ...]
    used: tuple[Row, ...] = ()
    anew: bool = False


class RowStream:
    """Deterministic: the same rows in the same order give the same windows, whichever way they came."""

    def __init__(self, profile: DeviceProfile) -> None:
        self._filter = JumpFilter(profile.window)
        self._rules = ReadingRules(profile.channel, profile.window)
        self._windower = Windower(profile.window, len(profile.channel))
        rows = profile.window.length + profile.window.max_hold_rows + profile.window.late_rows + 4
        self.memory_us = rows * profile.window.period_ns // 1000 + 1

    @property
    def clock_us(self) -> int | None:
        """The newest time that the stream believes in."""
        return self._filter.clock_us

    @property
    def jump_us(self) -> int:
        """How far from the stream's clock a row counts as a jump."""
        return self._filter.jump_us

    @property
    def counts(self) -> Counter[str]:
        """Windows, gaps, held values, missing rows, windows of low validity."""
        return self._windower.counts

    @property
    def held_back(self) -> HeldBack:
        """Rows that a jump in time holds back."""
        return self._filter.held_back

    def feed(self, rows: Sequence[Row]) -> Fed:
        """Take rows in order of arrival."""
        windows: list[Window] = []
        refusals: list[Refusal] = []
        used: list[Row] = []
        anew = False
        for row in rows:
            line = self._filter.pass_on(row)
            refusals += [Refusal("time-jump", "a row far from the stream's time")] * line.dropped
            if line.anew:
                windows += self._windower.take(final=True)
                self._rules.reset()
                self._windower.reset()
                used, anew = [], True
            for ready in line.rows:
                placed = self._place(ready, refusals)
                windows += self._windower.take()
                if placed is not None:
                    used.append(placed)
        return Fed(tuple(windows), tuple(refusals), tuple(used), anew)

    def restore(self, used: Sequence[Row], held_back: HeldBack) -> None:
        """Take up where another instance stopped: the rows it used last, in order, and those it held back.

        Windows that come of them were due before, and are not told again.
        """
        for row in used:
            self._place(row, [])
            for _ in self._windower.take():
                pass
        self._windower.counts.clear()
        self._filter.restore(max((row.time_us for row in used), default=None), held_back)

    def finish(self) -> Fed:
        """Close all open rows, because no more come; a jump still unconfirmed is dropped."""
        dropped = self._filter.abandon()
        windows = tuple(self._windower.take(final=True))
        refusals = (Refusal("time-jump", "the last rows are far from the stream's time"),) * dropped
        return Fed(windows, refusals)

    def _place(self, row: Row, refusals: list[Refusal]) -> Row | None:
        used: list[tuple[int, float]] = []
        for position, value in row.values:
            refusal = self._rules.judge(position, row.time_us, value)
            if refusal is None:
                reason = self._windower.put(position, row.time_us, value)
                refusal = None if reason is None else Refusal(reason)
            if refusal is None:
                self._rules.remember(position, row.time_us, value)
                used.append((position, value))
            else:
                refusals.append(refusal)
        return Row(row.time_us, tuple(used)) if used else None
