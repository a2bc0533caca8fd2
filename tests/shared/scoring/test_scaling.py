"""From readings to model input, against plain loops and against what must not matter."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hedgerow.shared.scoring import scaling

windows = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 3)),
    elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3)),
)


@settings(max_examples=60, deadline=None)
@given(windows)
def test_a_devices_centre_and_scale_are_the_mean_and_deviation_of_all_its_readings(raw: np.ndarray) -> None:
    channels = raw.shape[2]
    centre, scale = scaling.device_scaling(raw, np.full(channels, 1e-9))

    for channel in range(channels):
        readings = [float(value) for value in raw[:, :, channel].ravel()]
        assert centre[channel] == pytest.approx(statistics.fmean(readings), abs=1e-9)
        assert scale[channel] == pytest.approx(statistics.pstdev(readings), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_a_frozen_channel_keeps_a_share_of_its_public_spread(spread: float) -> None:
    raw = np.full((5, 4, 1), 7.0)

    centre, scale = scaling.device_scaling(raw, np.array([spread]))

    assert centre.tolist() == [7.0]
    assert scale.tolist() == [scaling.FLOOR * spread]


@settings(max_examples=60, deadline=None)
@given(windows, st.floats(0.1, 50))
def test_drift_is_the_variance_of_means_over_the_mean_of_variances(raw: np.ndarray, spread: float) -> None:
    found = scaling.drift_ratios(raw, np.full(raw.shape[2], spread))

    for channel in range(raw.shape[2]):
        rows = [[float(value) for value in window[:, channel]] for window in raw]
        between = statistics.pvariance([statistics.fmean(row) for row in rows])
        inside = statistics.fmean([statistics.pvariance(row) for row in rows])
        floor = (scaling.FLOOR * spread) ** 2
        assert found[channel] == pytest.approx(between / max(inside, floor), rel=1e-6, abs=1e-6)


def test_white_readings_drift_by_one_over_the_rows_and_a_ramp_by_far_more() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1, (3000, 25, 2))
    raw[:, :, 1] += np.linspace(0, 30, 3000)[:, None]

    white, ramp = scaling.drift_ratios(raw, np.ones(2))

    assert white == pytest.approx(1 / 25, rel=0.1)
    assert ramp == pytest.approx(30**2 / 12, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(windows, st.floats(0.01, 100), st.floats(-50, 50))
def test_scaling_takes_shift_and_unit_away(raw: np.ndarray, unit: float, shift: float) -> None:
    channels = raw.shape[2]
    centre, scale = np.full(channels, 2.0), np.full(channels, 5.0)

    plain = scaling.scaled(raw, centre, scale)
    other = scaling.scaled(raw * unit + shift, centre * unit + shift, scale * unit)

    assert other == pytest.approx(plain, rel=1e-6, abs=1e-6)
    assert scaling.scaled(np.full_like(raw, 7.0), centre, scale) == pytest.approx(np.ones_like(raw))


@settings(max_examples=60, deadline=None)
@given(windows, st.floats(0.5, 8), st.integers(0, 7))
def test_model_input_is_centred_where_asked_then_clipped(raw: np.ndarray, clip: float, mask: int) -> None:
    channels = raw.shape[2]
    centred = np.array([float(mask >> n & 1) for n in range(channels)])

    found = scaling.model_input(raw, centred, clip)

    assert found.dtype == np.float32 and found.shape == raw.shape
    for n, window in enumerate(raw):
        for channel in range(channels):
            rows = [float(value) for value in window[:, channel]]
            level = math.fsum(rows) / len(rows) if centred[channel] else 0.0
            expected = [min(max(value - level, -clip), clip) for value in rows]
            assert found[n, :, channel].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_model_input_leaves_what_it_is_given_as_it_was() -> None:
    raw = np.arange(12.0).reshape(2, 3, 2)
    before = raw.copy()

    scaling.model_input(raw, np.ones(2), 1.0)

    assert np.array_equal(raw, before)
