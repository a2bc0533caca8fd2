"""The statistical baseline: no model, no training; robust z-scores per channel, smoothed, the worst one counts.

It serves before a device has its first model and after a model failed, and it is what a model must beat.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import ContentError
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import chart, scaling
from hedgerow.shared.scoring.scorer import make_score
from hedgerow.shared.scoring.values import Doubles, Score, Vector

MAD_TO_SIGMA = 1.4826
"""Standard deviations per median absolute deviation of normal noise."""
MIN_WINDOWS = 4


class BaselineFitted(msgspec.Struct, frozen=True):
    """Median and robust spread per channel of smoothed readings, of the device's own normal windows."""

    median: Vector
    spread: Vector
    windows: int


class StatisticalBaseline:
    """Scores a window by its channel that is furthest from where the device's normal windows had it."""

    def __init__(self, profile: DeviceProfile, memory_rows: float = 10.0) -> None:
        self.channels = profile.channels
        self.threshold = profile.baseline_threshold
        self._memory_rows = memory_rows
        self._floor = scaling.FLOOR * np.array([channel.spread for channel in profile.channel], np.float64)

    def fit(self, windows: npt.NDArray[np.generic]) -> BaselineFitted:
        """Return the normal state of raw windows ``(n, rows, c)``. Raises ContentError with fewer than four."""
        if len(windows) < MIN_WINDOWS:
            raise ContentError(f"{len(windows)} normal windows; the baseline needs at least {MIN_WINDOWS}")
        smoothed = np.stack([self._smooth(window) for window in windows])
        median = np.median(smoothed, axis=0)
        spread = MAD_TO_SIGMA * np.median(np.abs(smoothed - median), axis=0)
        return BaselineFitted(
            tuple(median.tolist()), tuple(np.maximum(spread, self._floor).tolist()), len(windows)
        )

    def score(self, window: npt.NDArray[np.generic], fitted: BaselineFitted) -> Score:
        """Return the score of one raw window ``(rows, c)``. Raises ContentError if it is not finite."""
        z = np.abs(self._smooth(window) - np.array(fitted.median)) / np.array(fitted.spread)
        return make_score(float(z.max()), self.threshold, chart.shares(z), self.channels)

    def _smooth(self, window: npt.NDArray[np.generic]) -> Doubles:
        if window.ndim != 2 or window.shape[1] != len(self.channels):
            raise ContentError(f"a window of shape {window.shape}; expected (rows, {len(self.channels)})")
        raw = window.astype(np.float64)
        if not np.isfinite(raw).all():
            raise ContentError("a window holds values that are not finite")
        return chart.smooth(raw, chart.memory_weights(len(raw), self._memory_rows))
