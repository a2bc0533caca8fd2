"""What the scorer promises a device: quiet while normal, loud and right about the channel when not."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from hedgerow.shared.bundle import ScoringRule
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import Channel, DeviceProfile, WindowSpec
from hedgerow.shared.scoring import RULE_NAME, RULE_VERSION, Fitted, Scorer

Floats = npt.NDArray[np.float32]
NAMES = ("shake", "flow", "heat")
ROWS = 16


def profile(stride: int = 4) -> DeviceProfile:
    channels = tuple(Channel(name, "bar", -1e6, 1e6, 10.0 * n, 2.0) for n, name in enumerate(NAMES))
    return DeviceProfile("pump", 1, channel=channels, window=WindowSpec(length=ROWS, stride=stride))


def scorer(**options: Any) -> Scorer:
    return Scorer(ScoringRule(RULE_NAME, RULE_VERSION, options), profile())


def nothing(x: Floats) -> Floats:
    """A model that gives back nothing: the residual is the reading itself."""
    return np.zeros_like(x)


def windows(seed: int, count: int, shift: tuple[float, float, float] = (0, 0, 0)) -> Floats:
    rng = np.random.default_rng(seed)
    base = np.array([0.0, 10.0, 20.0]) + np.array(shift)
    return rng.normal(base, 2.0, (count, ROWS, 3)).astype(np.float32)


def test_normal_windows_stay_quiet_and_a_shift_is_loud_with_its_channel_first() -> None:
    made = scorer(factor=4 / 3)
    fitted = made.fit(windows(0, 200), nothing)

    quiet = [made.score(w, np.zeros_like(w), fitted).alarm for w in windows(1, 200)]
    loud = [made.score(w, np.zeros_like(w), fitted) for w in windows(2, 50, (0, 6, 0))]

    assert sum(quiet) <= 4
    assert all(score.alarm for score in loud)
    assert {score.attribution[0].channel for score in loud} == {"flow"}
    assert all(sum(part.share for part in score.attribution) == pytest.approx(1) for score in loud)


@pytest.mark.parametrize("options", [{}, {"dispersion": True, "release": 0.6}])
def test_scoring_in_one_go_gives_bit_for_bit_what_one_at_a_time_gives(options: dict[str, Any]) -> None:
    made = scorer(follow_rows=50, **options)
    fitted = made.fit(windows(0, 100), nothing)
    replay = windows(3, 60, (0, 1, 0))

    at_once, end = made.judge_all(replay, np.zeros_like(replay), fitted)
    one_by_one, now = [], fitted
    for window in replay:
        score, now = made.judge(window, np.zeros_like(window), now)
        one_by_one.append(score)

    assert at_once == one_by_one
    assert end == now


def test_model_input_of_a_window_does_not_depend_on_the_batch_it_comes_in() -> None:
    made = scorer(scaling="device", slow=["heat"])
    fitted = made.fit(windows(0, 100), nothing)
    batch = windows(4, 10)

    together = made.transform(batch, fitted)
    alone = np.concatenate([made.transform(window[None], fitted) for window in batch])

    assert together.dtype == np.float32
    assert np.array_equal(together, alone)


def test_public_scaling_uses_the_data_sheet_alone_and_clips() -> None:
    made = scorer(clip=1.5)
    window = np.tile(np.array([2.0, 10.0, 1000.0], np.float32), (1, ROWS, 1))

    assert made.transform(window)[0, 0].tolist() == [1.0, 0.0, 1.5]


def test_slow_channels_are_centred_within_the_window_and_never_judged() -> None:
    made = scorer(slow=["heat"])
    fitted = made.fit(windows(0, 100), nothing)
    hot = windows(5, 1, (0, 0, 50))

    assert abs(made.transform(hot, fitted)[0, :, 2].mean()) < 0.3
    assert not made.score(hot[0], np.zeros((ROWS, 3), np.float32), fitted).alarm


def test_a_channel_that_wanders_between_windows_is_found_to_drift() -> None:
    normal = windows(0, 100)
    normal[:, :, 2] += np.linspace(0, 40, 100, dtype=np.float32)[:, None]

    fitted = scorer(scaling="device", drift_ratio=0.5).fit(normal, nothing)

    assert fitted.drifting == (False, False, True)


def test_window_centring_hides_the_level_from_the_model_but_not_from_the_chart() -> None:
    made = scorer(centring="window")
    fitted = made.fit(windows(0, 200), nothing)
    shifted = windows(6, 1, (0, 8, 0))

    assert np.abs(made.transform(shifted, fitted).mean(axis=1)).max() < 0.2
    assert made.score(shifted[0], np.zeros((ROWS, 3), np.float32), fitted).attribution[0].channel == "flow"


def test_a_slow_drift_is_followed_and_a_step_is_not() -> None:
    made, still = scorer(follow_rows=40), scorer()
    fitted = made.fit(windows(0, 200), nothing)
    drift = np.stack([windows(100 + n, 1, (0, 0.02 * n, 0))[0] for n in range(150)])
    step = windows(7, 150, (0, 6, 0))

    following, _ = made.judge_all(drift, np.zeros_like(drift), fitted)
    standing, _ = still.judge_all(drift, np.zeros_like(drift), fitted)
    stepped, after = made.judge_all(step, np.zeros_like(step), fitted)

    assert sum(score.alarm for score in following) < sum(score.alarm for score in standing) / 2
    assert all(score.alarm for score in stepped)
    assert after.mean == fitted.mean


def test_an_alarm_stays_on_down_to_its_release_and_begins_again_only_at_the_threshold() -> None:
    plain, held = scorer(), scorer(release=0.5)
    fitted = held.fit(windows(0, 200), nothing)
    flow = fitted.mean[1] + np.array([0.8, 1.2, 0.8, 0.6, 0.4, 0.8]) * fitted.threshold * fitted.sigma[1]
    replay = np.tile(np.array([fitted.mean[0], 0, fitted.mean[2]]), (6, ROWS, 1))
    replay[:, :, 1] = flow[:, None]
    replay = np.array([0.0, 10.0, 20.0]) + 2.0 * replay  # from scaled units to the profile's

    without, _ = plain.judge_all(replay, np.zeros_like(replay), fitted)
    scores, end = held.judge_all(replay, np.zeros_like(replay), fitted)

    assert [score.alarm for score in without] == [False, True, False, False, False, False]
    assert [score.alarm for score in scores] == [False, True, True, True, False, False]
    assert [score.value for score in scores] == [score.value for score in without]
    assert not end.alarming


def test_nothing_is_followed_while_an_alarm_is_held() -> None:
    made = scorer(release=0.2, follow_rows=20, follow_below=0.9)
    fitted = made.fit(windows(0, 200), nothing)
    loud, near = windows(7, 1, (0, 6, 0))[0], windows(8, 1, (0, 2, 0))[0]

    _, on = made.judge(loud, np.zeros_like(loud), fitted)
    held, still = made.judge(near, np.zeros_like(near), on)
    free, moved = made.judge(near, np.zeros_like(near), fitted)

    assert on.alarming and held.alarm and still is on
    assert not free.alarm and moved.mean != fitted.mean


@pytest.mark.parametrize("times", [0.2, 4.0])
def test_dispersion_finds_a_channel_that_shakes_more_or_less_at_the_same_level(times: float) -> None:
    blind, made = scorer(factor=4 / 3), scorer(factor=4 / 3, dispersion=True)
    changed = windows(9, 60)
    level = np.float32(10.0)
    changed[:, :, 1] = level + np.float32(times) * (changed[:, :, 1] - level)

    def alarms(which: Scorer) -> list[bool]:
        fitted = which.fit(windows(0, 200), nothing)
        scores, _ = which.judge_all(changed, np.zeros_like(changed), fitted)
        assert all(sum(part.share for part in score.attribution) == pytest.approx(1) for score in scores)
        if which is made:
            assert next(score.attribution[0].channel for score in scores if score.alarm) == "flow"
        return [score.alarm for score in scores]

    assert sum(alarms(made)) > 50
    if times < 1:
        assert sum(alarms(blind)) == 0


def test_a_faulty_channel_is_not_followed_while_the_others_are() -> None:
    together = scorer(follow_rows=40, follow_below=1.0)
    apart = scorer(follow_rows=40, follow_below=1.0, follow_gate="each")
    fitted = apart.fit(windows(0, 200), nothing)
    faulty = windows(7, 80, (0.6, 6, 0))

    scores, after = apart.judge_all(faulty, np.zeros_like(faulty), fitted)
    _, whole = together.judge_all(faulty, np.zeros_like(faulty), fitted)

    assert all(score.alarm for score in scores)
    assert after.mean[1] == fitted.mean[1] and after.mean[0] > fitted.mean[0] + 0.1
    assert whole.mean == fitted.mean


def test_expected_wander_widens_the_restless_channel_and_leaves_the_others_sharp() -> None:
    walk = np.cumsum(np.random.default_rng(11).normal(0, 0.15, 200))
    fit = windows(0, 200)
    fit[:, :, 0] += walk[:, None].astype(np.float32)
    plain, wide = scorer(), scorer(wander_rows=800)

    narrow_fit, wide_fit = plain.fit(fit, nothing), wide.fit(fit, nothing)

    assert wide_fit.sigma[0] > 1.5 * narrow_fit.sigma[0]
    reach = [made.sigma[1] * made.threshold for made in (narrow_fit, wide_fit)]
    assert reach[1] < reach[0]
    assert wide_fit.sigma[0] * wide_fit.threshold > narrow_fit.sigma[0] * narrow_fit.threshold


def test_a_wandering_fit_widens_the_held_out_spread_alone() -> None:
    wandering = np.concatenate([windows(n, 50, (0, 1.0 * n, 0)) for n in range(4)])

    whole, held = (scorer(spread=spread).fit(wandering, nothing) for spread in ("whole", "held-out"))

    assert held.mean == whole.mean
    assert held.sigma[1] > 1.15 * whole.sigma[1]
    assert held.sigma[0] == pytest.approx(whole.sigma[0], rel=0.1)


def test_fitted_values_survive_json() -> None:
    fitted = scorer(dispersion=True).fit(windows(0, 50), nothing)

    assert len(fitted.mean) == 6
    assert msgspec.json.decode(msgspec.json.encode(fitted), type=Fitted) == fitted


def test_values_fitted_before_there_were_deadbands_are_still_read() -> None:
    fitted = scorer().fit(windows(0, 50), nothing)
    kept = msgspec.to_builtins(fitted)
    del kept["alarming"]

    assert msgspec.convert(kept, Fitted) == fitted


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (ScoringRule("magic", 1), "magic"),
        (ScoringRule(RULE_NAME, RULE_VERSION + 1), "not known"),
        (ScoringRule(RULE_NAME, RULE_VERSION, {"clip": -1}), "clip"),
        (ScoringRule(RULE_NAME, RULE_VERSION, {"surprise": 1}), "surprise"),
        (ScoringRule(RULE_NAME, RULE_VERSION, {"slow": ["steam"]}), "steam"),
    ],
)
def test_a_rule_that_is_not_understood_is_refused(rule: ScoringRule, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Scorer(rule, profile())


def test_too_few_windows_another_shape_and_values_not_finite_are_refused() -> None:
    made = scorer()
    fitted = made.fit(windows(0, 50), nothing)
    bad = windows(1, 1)[0]
    bad[3, 1] = np.nan

    with pytest.raises(ContentError, match="at least 16"):
        made.fit(windows(0, 15), nothing)
    with pytest.raises(ContentError, match="expected"):
        made.transform(windows(0, 2)[:, :, :2])
    with pytest.raises(ContentError, match="not finite"):
        made.score(bad, np.zeros_like(bad), fitted)
    with pytest.raises(ContentError, match="not finite"):
        made.score(windows(1, 1)[0], np.full((ROWS, 3), np.inf, np.float32), fitted)


def test_device_scaling_without_a_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="fit it first"):
        scorer(scaling="device").transform(windows(0, 2))
