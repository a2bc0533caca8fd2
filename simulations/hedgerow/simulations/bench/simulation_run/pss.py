"""The peak of a process tree's memory while rounds run."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Self

from hedgerow.simulations.flower.processes import WHOLE, family_pss


class PeakPss:
    """Looks at a tree several times a second while it is entered; ``bytes_`` is the largest it saw.

    Looking takes time of the cores that are being measured: it is done in rounds that are not timed. Processes are looked at one
    after another: a page that a second one maps in between is counted whole in the first and by its share in the second. So
    each look is two, and the smaller one counts.
    """

    def __init__(self, pid: int, interval_s: float = 0.1, fields: Collection[str] = WHOLE) -> None:
        self.bytes_ = 0
        self._fields = fields
        self._pid, self._interval_s = pid, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._look()

    def _look(self) -> None:
        found = min(family_pss(self._pid, self._fields) for _ in range(2))
        self.bytes_ = max(self.bytes_, found)
