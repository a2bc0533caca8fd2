"""Row-wise detection metrics over any number of files: counts add up, rates come last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RowCounts:
    """Rows by what they are and what was said of them. Adding two counts pools their rows."""

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    quiet: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
            self.quiet + other.quiet,
        )

    def rates(self) -> dict[str, float]:
        """Return ``f1``, ``far_percent`` (alarms among normal rows) and ``mar_percent`` (misses among anomalous rows).

        A rate over no rows is 0; F1 is 0 where there is neither an alarm nor an anomaly.
        """
        return {
            "f1": _share(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses),
            "far_percent": 100 * _share(self.false_alarms, self.false_alarms + self.quiet),
            "mar_percent": 100 * _share(self.misses, self.misses + self.hits),
        }


def count_rows(alarm: Flags, anomaly: Flags) -> RowCounts:
    """Return the counts of one file's scored rows, both bool ``(n,)``."""
    return RowCounts(
        hits=int((alarm & anomaly).sum()),
        false_alarms=int((alarm & ~anomaly).sum()),
        misses=int((~alarm & anomaly).sum()),
        quiet=int((~alarm & ~anomaly).sum()),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
