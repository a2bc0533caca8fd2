"""The baseline needs no model: a few windows, and it knows which channel is off."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.shared.errors import ContentError
from hedgerow.shared.profile import Channel, DeviceProfile
from hedgerow.shared.scoring import StatisticalBaseline

PROFILE = DeviceProfile(
    "two", 1, channel=tuple(Channel(name, "bar", -1e6, 1e6, 0.0, 1.0) for name in ("a", "b"))
)


def windows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 1, (count, 20, 2)).astype(np.float32)


def test_a_shifted_channel_is_an_alarm_and_comes_first() -> None:
    baseline = StatisticalBaseline(PROFILE)
    fitted = baseline.fit(windows(0, 50))
    shifted = windows(1, 1)[0] + np.array([0, 9], np.float32)

    score = baseline.score(shifted, fitted)

    assert score.alarm
    assert score.attribution[0].channel == "b"
    assert sum(part.share for part in score.attribution) == pytest.approx(1)


def test_normal_windows_stay_below_the_profile_s_threshold() -> None:
    baseline = StatisticalBaseline(PROFILE)
    fitted = baseline.fit(windows(0, 100))

    scores = [baseline.score(window, fitted) for window in windows(2, 200)]

    assert not any(score.alarm for score in scores)
    assert {score.threshold for score in scores} == {PROFILE.baseline_threshold}


def test_a_few_bad_windows_in_the_fit_do_not_blind_it() -> None:
    normal = windows(0, 50)
    normal[:5] += 100
    baseline = StatisticalBaseline(PROFILE)

    fitted = baseline.fit(normal)

    assert baseline.score(windows(3, 1)[0] + 9, fitted).alarm


def test_too_few_windows_and_values_not_finite_are_refused() -> None:
    baseline = StatisticalBaseline(PROFILE)
    bad = windows(0, 1)[0]
    bad[0, 0] = np.inf

    with pytest.raises(ContentError, match="at least 4"):
        baseline.fit(windows(0, 3))
    with pytest.raises(ContentError, match="not finite"):
        baseline.score(bad, baseline.fit(windows(0, 10)))
    with pytest.raises(ContentError, match="expected"):
        baseline.score(windows(0, 1)[0][:, :1], baseline.fit(windows(0, 10)))
