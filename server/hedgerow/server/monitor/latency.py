"""Quantiles of latency from the histogram that a device reports."""

from __future__ import annotations

from hedgerow.shared.messages import LatencyHistogram


def quantile_us(histogram: LatencyHistogram, q: float) -> float | None:
    """Return the ``q`` quantile in microseconds, interpolated inside its bucket; None for an empty histogram.

    A value in the last, open bucket is given as that bucket's lower bound.
    """
    total = sum(histogram.counts)
    if total == 0:
        return None
    wanted, below = q * total, 0
    for n, count in enumerate(histogram.counts):
        if count and below + count >= wanted:
            low = float(histogram.bounds_us[n - 1]) if n else 0.0
            if n >= len(histogram.bounds_us):
                return low
            return low + (histogram.bounds_us[n] - low) * (wanted - below) / count
        below += count
    return float(histogram.bounds_us[-1]) if histogram.bounds_us else None
