"""From readings to windows: a fixed grid of rows, held values, validity. Pure: the same readings give the same bytes.

- Row ``n`` stands at ``n`` periods since 1970 and takes readings up to half a period to either side; per channel
  the first one counts, and later ones (``surplus``) are what following rows fall back on.
- A row closes when it is complete, or ``late_rows`` newer rows have begun; rows close in order.
- A channel without a reading in a row keeps its last one: as measured if that is younger than ``FRESH`` periods (a
  sensor whose ticks straddle the row's edge), else as held, for at most ``max_hold_rows`` rows; after that the
  window's past is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.telemetry.reading import Reason
from hedgerow.shared.profile import WindowSpec

FRESH: Final = 0.75


class Window(msgspec.Struct, frozen=True):
    """``array`` float32 ``(length, channels)``; times of its first and last row; share of measured values."""

    array: npt.NDArray[np.float32]
    start_us: int
    end_us: int
    valid: float


class Windower:
    """Follows one stream of readings; ``counts`` tells windows, gaps, held values and windows of low validity."""

    def __init__(self, window: WindowSpec, n_channels: int) -> None:
        self._spec = window
        self._period_ns = window.period_ns
        self._n = n_channels
        self.counts: Counter[str] = Counter()
        self._rows = np.empty((2 * window.length, n_channels), np.float32)
        self._measured = np.empty(2 * window.length, np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget the past, because the stream's clock was set anew."""
        self._open: dict[int, npt.NDArray[np.float64]] = {}
        self._next: int | None = None
        self._newest = 0
        self._used = 0
        self._last = np.full(self._n, np.nan)
        self._last_us = np.zeros(self._n, np.int64)
        self._spare = np.full(self._n, np.nan)
        self._spare_us = np.zeros(self._n, np.int64)
        self._held = np.zeros(self._n, np.int64)
        self._times: dict[int, npt.NDArray[np.int64]] = {}

    def put(self, position: int, time_us: int, value: float) -> Reason | None:
        """Place one reading; return why it has no place, or None. Call ``take`` after each row's readings."""
        row = self._row_of(time_us)
        if self._next is None:
            self._next = self._newest = row
        if row < self._next:
            if self._row_of(int(max(self._last_us[position], self._spare_us[position]))) != row:
                return "out-of-order"
            self._keep_spare(position, time_us, value)
            return None
        cells = self._open.get(row)
        if cells is None:
            cells = self._open[row] = np.full(self._n, np.nan)
            self._times[row] = np.zeros(self._n, np.int64)
            self._newest = max(self._newest, row)
        if not np.isnan(cells[position]):
            self._keep_spare(position, time_us, value)
            return None
        cells[position] = value
        self._times[row][position] = time_us
        return None

    def _keep_spare(self, position: int, time_us: int, value: float) -> None:
        self.counts["surplus"] += 1
        self._spare[position] = value
        self._spare_us[position] = time_us

    def take(self, *, final: bool = False) -> Iterator[Window]:
        """Yield the windows that are due; ``final`` closes every open row, because no more readings come."""
        while self._next is not None and self._next <= self._newest:
            row = self._next
            cells = self._open.get(row)
            complete = cells is not None and not np.isnan(cells).any()
            if not (complete or final or self._newest - row > self._spec.late_rows):
                return
            if cells is None and not self._worth_holding(row):
                continue
            self._next = row + 1
            if self._close(row, cells):
                window = self._window(row)
                if window is not None:
                    yield window

    def _worth_holding(self, row: int) -> bool:
        """Skip to the oldest open row where the rows between can only be gaps."""
        oldest = min(self._open, default=self._newest + 1)
        if self._used or oldest - row <= 1:
            return True
        self.counts["missing-rows"] += oldest - row
        self._held += oldest - row
        self._next = oldest
        return False

    def _close(self, row: int, cells: npt.NDArray[np.float64] | None) -> bool:
        """Fill the row and append it; False where it could not be filled, which drops the window's past."""
        if cells is None:
            self.counts["missing-rows"] += 1
            cells = np.full(self._n, np.nan)
        else:
            del self._open[row]
        absent = np.isnan(cells)
        begins_us = (self._row_ns(row) - self._period_ns // 2) // 1000
        newer = (self._spare_us > self._last_us) & (self._spare_us < begins_us)
        self._last = np.where(newer, self._spare, self._last)
        self._last_us = np.where(newer, self._spare_us, self._last_us)
        times = self._times.pop(row, None)
        if times is not None:
            self._last_us = np.where(absent, self._last_us, times)
        fresh = (
            absent
            & (self._row_ns(row) - self._last_us * 1000 < FRESH * self._period_ns)
            & ~np.isnan(self._last)
        )
        self._held = np.where(absent & ~fresh, self._held + 1, 0)
        self._last = np.where(absent, self._last, cells)
        if np.isnan(self._last).any() or (self._held > self._spec.max_hold_rows).any():
            if self._used:
                self.counts["gaps"] += 1
            self._used = 0
            return False
        held = int((absent & ~fresh).sum())
        self.counts["held-values"] += held
        self._append(held)
        return True

    def _append(self, held: int) -> None:
        length = self._spec.length
        if self._used == 2 * length:
            self._rows[:length] = self._rows[length:]
            self._measured[:length] = self._measured[length:]
            self._used = length
        self._rows[self._used] = self._last
        self._measured[self._used] = self._n - held
        self._used += 1

    def _window(self, row: int) -> Window | None:
        length = self._spec.length
        if self._used < length or (row + 1) % self._spec.stride:
            return None
        part = slice(self._used - length, self._used)
        valid = int(self._measured[part].sum()) / (length * self._n)
        if valid < self._spec.min_valid:
            self.counts["low-validity"] += 1
            return None
        self.counts["windows"] += 1
        start_us = self._row_ns(row - length + 1) // 1000
        return Window(self._rows[part].copy(), start_us, self._row_ns(row) // 1000, valid)

    def _row_of(self, time_us: int) -> int:
        return (time_us * 1000 + self._period_ns // 2) // self._period_ns

    def _row_ns(self, row: int) -> int:
        return row * self._period_ns
