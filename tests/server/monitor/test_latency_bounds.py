"""Quantiles against sorted samples, histograms that lie, and heartbeats that carry them."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fleet import heartbeat_of

from hedgerow.server.fleet.heartbeats import check_heartbeat
from hedgerow.server.monitor.latency import quantile_us
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import BundleReport, Heartbeat, LatencyHistogram, ReportedState, decode

BOUNDS = st.lists(st.integers(1, 10**6), min_size=1, max_size=12, unique=True).map(sorted).map(tuple)


def histogram_of(samples: list[int], bounds: tuple[int, ...]) -> LatencyHistogram:
    places = np.searchsorted(np.array(bounds), np.array(samples))
    return LatencyHistogram(bounds, tuple(np.bincount(places, minlength=len(bounds) + 1).tolist()))


@given(BOUNDS, st.lists(st.integers(0, 2 * 10**6), min_size=1, max_size=60), st.floats(0.001, 1))
def test_a_quantile_lies_in_the_bucket_of_the_sample_that_is_it(
    bounds: tuple[int, ...], samples: list[int], q: float
) -> None:
    wanted = sorted(samples)[max(0, math.ceil(q * len(samples)) - 1)]
    found = quantile_us(histogram_of(samples, bounds), q)
    edges = (0, *bounds)
    bucket = int(np.searchsorted(np.array(bounds), wanted))

    assert found is not None
    if bucket == len(bounds):
        assert found == bounds[-1]
    else:
        assert edges[bucket] <= found <= bounds[bucket]


@given(BOUNDS, st.lists(st.integers(0, 2 * 10**6), min_size=1, max_size=60))
def test_quantiles_rise_with_q(bounds: tuple[int, ...], samples: list[int]) -> None:
    histogram = histogram_of(samples, bounds)
    found = [quantile_us(histogram, q) for q in (0.01, 0.1, 0.5, 0.9, 0.99, 1.0)]

    assert found == sorted(found, key=lambda value: -1 if value is None else value)


@given(BOUNDS)
def test_nothing_measured_has_no_quantile(bounds: tuple[int, ...]) -> None:
    assert quantile_us(LatencyHistogram(bounds, (0,) * (len(bounds) + 1)), 0.5) is None


def test_inside_a_bucket_the_quantile_is_interpolated() -> None:
    """Ten samples between 100 and 200: the fifth is half way, by the definition that Prometheus documents."""
    assert quantile_us(LatencyHistogram((100, 200), (0, 10, 0)), 0.5) == 150
    assert quantile_us(LatencyHistogram((100, 200), (10, 10, 0)), 0.75) == 150
    assert quantile_us(LatencyHistogram((100, 200), (10, 0, 0)), 0.1) == 10


def test_a_histogram_without_bounds_has_nothing_to_tell() -> None:
    assert quantile_us(LatencyHistogram((), (5,)), 0.5) == 0
    assert quantile_us(LatencyHistogram((), ()), 0.5) is None


LIES = [
    ({"latency": LatencyHistogram((10,), (10**400, 1))}, "heartbeat.latency"),
    ({"latency": LatencyHistogram((10**400,), (1, 1))}, "heartbeat.latency"),
    ({"latency": LatencyHistogram((10,), (-1, 1))}, "heartbeat.latency"),
    ({"latency": LatencyHistogram((-10,), (1, 1))}, "heartbeat.latency"),
    ({"latency": LatencyHistogram((10,), (1,))}, "heartbeat.latency"),
    ({"latency": LatencyHistogram((10,), (1, 1, 1))}, "heartbeat.latency"),
    ({"latency": LatencyHistogram((1,) * 65, (1,) * 66)}, "heartbeat.latency"),
    ({"pss_bytes": -1}, "heartbeat.pss_bytes"),
    ({"readings_total": 2**63}, "heartbeat.readings_total"),
    ({"bytes_up": 10**400}, "heartbeat.bytes_up"),
    ({"sent_us": -1}, "heartbeat.sent_us"),
    ({"state": ReportedState(-2)}, "heartbeat.state.revision"),
    ({"state": ReportedState(2**63)}, "heartbeat.state.revision"),
    ({"state": ReportedState(1, profile_version=10**30)}, "heartbeat.state.profile_version"),
    (
        {"state": ReportedState(1, (BundleReport("m", 1, "", "serving"), BundleReport("m", 10**30, "", "serving")))},
        "heartbeat.state.bundles[1].version",
    ),
    ({"state": ReportedState(1, (BundleReport("m", 1, "", "serving"),) * 65)}, "heartbeat.state"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "where"), LIES, ids=[f"{n} {where}" for n, (_, where) in enumerate(LIES)]
)
def test_a_number_that_no_device_has_is_refused_by_its_place(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ContentError) as caught:
        check_heartbeat(heartbeat_of("pump-1", **changes))

    assert str(caught.value).startswith(f"{where}:")


COUNT = st.integers(0, 2**63 - 1)


@given(
    st.lists(COUNT, min_size=1, max_size=8).flatmap(
        lambda bounds: st.builds(
            LatencyHistogram, st.just(tuple(bounds)), st.lists(COUNT, min_size=len(bounds) + 1, max_size=len(bounds) + 1).map(tuple)
        )
    ),
    st.builds(ReportedState, COUNT, profile_version=COUNT),
)  # fmt: skip
def test_a_heartbeat_that_is_taken_can_be_shown_and_written_down(
    latency: LatencyHistogram, state: ReportedState
) -> None:
    beat = heartbeat_of("pump-1", latency=latency, state=state)
    check_heartbeat(beat)

    for q in (0.5, 0.99):
        found = quantile_us(latency, q)
        assert found is None or math.isfinite(found)
    assert decode(msgspec.json.encode(beat), Heartbeat) == beat
