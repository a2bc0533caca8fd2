"""Latency counts in fixed logarithmic buckets, so that histograms of devices and versions add up."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from hedgerow.shared.messages import LatencyHistogram

BOUNDS_US: Final = (*(step * 10**decade for decade in range(6) for step in (1, 2, 5)), 1_000_000)


class Histogram:
    """Counts of latencies. Not safe for several threads at once: its owner locks."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_US) + 1)

    def add(self, latency_us: int) -> None:
        """Count one latency in the first bucket whose bound it does not exceed."""
        self._counts[bisect_left(BOUNDS_US, latency_us)] += 1

    @property
    def total(self) -> int:
        """Latencies counted."""
        return sum(self._counts)

    def snapshot(self) -> LatencyHistogram:
        """Return the counts as they are sent."""
        return LatencyHistogram(BOUNDS_US, tuple(self._counts))


def merged(histograms: list[LatencyHistogram]) -> LatencyHistogram:
    """Return the sum of histograms made by ``Histogram``; all zero if there are none."""
    counts = [0] * (len(BOUNDS_US) + 1)
    for histogram in histograms:
        counts = [a + b for a, b in zip(counts, histogram.counts, strict=True)]
    return LatencyHistogram(BOUNDS_US, tuple(counts))
