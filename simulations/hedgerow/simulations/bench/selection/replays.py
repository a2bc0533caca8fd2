"""Normal stretches of recordings as replays: rows to fit on, and held-out normal rows after them.

Nothing here opens a label column, and of a labelled recording only the rows that the benchmark calls normal beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.shared.profile import DeviceProfile
from hedgerow.simulations.bench.skab_files import read_channels

Doubles = npt.NDArray[np.float64]

NORMAL_ROWS: Final = 400
"""Rows at the start of a labelled recording that are normal by the benchmark's protocol."""
LONG: Final = "long"
"""Name of the family with room for faults that last for minutes."""
SHORT_FIT: Final = 250
LONG_REST: Final = 750
"""Rows judged after the fit in a long replay: about as many as an experiment has."""
DRIFT_ROWS: Final = 61
"""Rows of the centred mean that counts as drift."""


@dataclass(frozen=True)
class Family:
    """Replays of one length: ``fit`` is ``(n, fit rows, c)``, ``rest`` the normal rows after, ``(n, rows, c)``."""

    name: str
    fit: Doubles
    rest: Doubles

    def drifting(self, times: float) -> Doubles:
        """Return ``rest`` with its slow movement since the fit's end multiplied by ``times``, at least 1."""
        whole = np.concatenate([self.fit, self.rest], axis=1)
        slow = centred_mean(whole, DRIFT_ROWS)
        start = self.fit.shape[1]
        moved: Doubles = self.rest + (times - 1) * (slow[:, start:] - slow[:, start - 1 : start])
        return moved


def short_family(paths: Sequence[Path], profile: DeviceProfile) -> Family:
    """Return the first rows of labelled recordings, split into fit and held out."""
    rows = np.stack([read_channels(path, profile, NORMAL_ROWS)[:NORMAL_ROWS] for path in paths])
    return Family("short", rows[:, :SHORT_FIT].astype(float), rows[:, SHORT_FIT:].astype(float))


def long_family(path: Path, profile: DeviceProfile) -> Family:
    """Return a run without anomalies cut every ``NORMAL_ROWS`` rows; each cut is fitted on that many."""
    length = NORMAL_ROWS + LONG_REST
    rows = read_channels(path, profile, length).astype(float)
    starts = range(0, len(rows) - length + 1, NORMAL_ROWS)
    cuts = np.stack([rows[start : start + length] for start in starts])
    return Family(LONG, cuts[:, :NORMAL_ROWS], cuts[:, NORMAL_ROWS:])


def centred_mean(rows: Doubles, length: int) -> Doubles:
    """Return the mean over ``length`` (odd) rows about each row of ``(…, n, c)``; ends are held beyond the edge."""
    reach = length // 2
    pad = [(0, 0)] * (rows.ndim - 2) + [(reach + 1, reach), (0, 0)]
    total = np.cumsum(np.pad(rows, pad, mode="edge"), axis=-2)
    mean: Doubles = (total[..., length:, :] - total[..., :-length, :]) / length
    return mean
