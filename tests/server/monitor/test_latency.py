"""Quantiles lie in the bucket where the values were."""

from __future__ import annotations

import bisect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.monitor.latency import quantile_us
from hedgerow.shared.messages import LatencyHistogram

BOUNDS = (10, 20, 50, 100, 1000)


def histogram(values: list[float]) -> LatencyHistogram:
    counts = [0] * (len(BOUNDS) + 1)
    for value in values:
        counts[bisect.bisect_left(BOUNDS, value)] += 1
    return LatencyHistogram(BOUNDS, tuple(counts))


def test_an_empty_histogram_has_no_quantile() -> None:
    assert quantile_us(histogram([]), 0.5) is None


@given(st.lists(st.floats(0.1, 999), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_the_quantile_is_within_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    found = quantile_us(histogram(values), q)
    true = float(np.quantile(values, q, method="inverted_cdf"))

    assert found is not None
    bucket = bisect.bisect_left(BOUNDS, true)
    low = BOUNDS[bucket - 1] if bucket else 0
    assert low <= found <= BOUNDS[bucket]


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_the_open_bucket_gives_its_lower_bound(q: float) -> None:
    assert quantile_us(histogram([5000.0]), q) == 1000.0
