from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.inference.histogram import BOUNDS_US, Histogram, merged


def test_bounds_rise_from_a_microsecond_to_a_second() -> None:
    assert list(BOUNDS_US) == sorted(set(BOUNDS_US))
    assert (BOUNDS_US[0], BOUNDS_US[-1]) == (1, 1_000_000)


@pytest.mark.parametrize(
    ("latency", "bucket"), [(1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (10**6, 18), (10**6 + 1, 19)]
)
def test_a_latency_counts_in_the_first_bucket_that_holds_it(latency: int, bucket: int) -> None:
    histogram = Histogram()
    histogram.add(latency)

    assert [n for n, count in enumerate(histogram.snapshot().counts) if count] == [bucket]


@given(st.lists(st.lists(st.integers(1, 10**7), max_size=20), max_size=5))
def test_histograms_add_up(groups: list[list[int]]) -> None:
    together, parts = Histogram(), []
    for group in groups:
        part = Histogram()
        for latency in group:
            part.add(latency)
            together.add(latency)
        parts.append(part.snapshot())

    assert merged(parts) == together.snapshot()
    assert sum(merged(parts).counts) == together.total == sum(map(len, groups))


def test_a_snapshot_does_not_change_afterwards() -> None:
    histogram = Histogram()
    before = histogram.snapshot()
    histogram.add(1)

    assert sum(before.counts) == 0
