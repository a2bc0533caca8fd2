"""The scorer against a slow account of its rule, in plain loops over plain lists, without a line of its code."""

from __future__ import annotations

import math
import statistics
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.shared.bundle import ScoringRule
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import Channel, DeviceProfile, WindowSpec
from hedgerow.shared.scoring import RULE_NAME, RULE_VERSION, ChartOptions, Fitted, Scorer, StatisticalBaseline
from hedgerow.shared.scoring.scorer import MIN_WINDOWS, make_score, read_rule

Rows = list[list[float]]
NOMINAL, SPREAD = (0.0, 10.0, -5.0), (2.0, 1.0, 0.5)
PROFILE = DeviceProfile(
    "pump",
    1,
    channel=tuple(
        Channel(name, "bar", -1e6, 1e6, nominal, spread)
        for name, nominal, spread in zip("abc", NOMINAL, SPREAD, strict=True)
    ),
    window=WindowSpec(length=6, stride=3),
)


def halved(x: np.ndarray) -> np.ndarray:
    """A model that gives back half of what it sees."""
    return (x * np.float32(0.5)).astype(np.float32)


class Account:
    """One rule with public scaling and fixed centring, told step by step."""

    def __init__(self, options: ChartOptions, windows: list[Rows]) -> None:
        self.options = options
        self.slow = [name in options.slow for name in "abc"]
        self.watched = [True] * 3 if all(self.slow) else [not slow for slow in self.slow]
        if options.dispersion:
            self.watched = self.watched * 2
        charted = [self.charted(window) for window in windows]
        self.mean, plain = self.describe(charted)
        self.wander = [
            self.rate([row[k] for row in charted]) * options.wander_rows / PROFILE.window.stride
            for k in range(len(self.watched))
        ]
        self.sigma = [math.sqrt(s * s + w) for s, w in zip(plain, self.wander, strict=True)]
        scores = []
        for stretch in self.stretches(len(charted)):
            rest = [row for n, row in enumerate(charted) if n not in stretch]
            mean, sigma = self.describe(rest)
            wide = [math.sqrt(s * s + w) for s, w in zip(sigma, self.wander, strict=True)]
            scores += [max(self.apart(charted[n], mean, wide)) for n in stretch]
        self.threshold = options.factor * self.quantile(scores, options.quantile)
        self.home = list(self.mean)
        self.on = False

    @staticmethod
    def stretches(n: int) -> list[list[int]]:
        """Four stretches of time, the earlier ones one longer where it does not divide."""
        sizes = [n // 4 + (part < n % 4) for part in range(4)]
        return [list(range(sum(sizes[:part]), sum(sizes[: part + 1]))) for part in range(4)]

    @staticmethod
    def quantile(values: list[float], q: float) -> float:
        ordered = sorted(values)
        at = q * (len(ordered) - 1)
        low = math.floor(at)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (at - low) * (ordered[high] - ordered[low])

    @staticmethod
    def rate(levels: list[float]) -> float:
        near, far = max(1, len(levels) // 8), len(levels) // 2

        def growth(lag: int) -> float:
            return statistics.fmean((b - a) ** 2 for a, b in zip(levels, levels[lag:], strict=False))

        return max(0.0, growth(far) - growth(near)) / max(1, far - near)

    def describe(self, rows: Rows) -> tuple[list[float], list[float]]:
        columns = list(zip(*rows, strict=True))
        means = [statistics.fmean(column) for column in columns]
        if self.options.spread == "whole":
            return means, [max(0.02, statistics.pstdev(column)) for column in columns]
        sigma = []
        for column in columns:
            squares = []
            for stretch in self.stretches(len(column)):
                others = statistics.fmean(v for n, v in enumerate(column) if n not in stretch)
                squares += [(column[n] - others) ** 2 for n in stretch]
            sigma.append(max(0.02, math.sqrt(statistics.fmean(squares))))
        return means, sigma

    def charted(self, window: Rows) -> list[float]:
        """The smoothed residual of each channel; then, if charted, the logarithm of its deviation in the window."""
        weights = [math.exp(-age / self.options.memory_rows) for age in range(len(window) - 1, -1, -1)]
        whole = math.fsum(weights)
        levels, shakes = [], []
        for k in range(3):
            readings = [(row[k] - NOMINAL[k]) / SPREAD[k] for row in window]
            shown = list(readings)
            if self.slow[k]:
                level = statistics.fmean(readings)
                shown = [value - level for value in readings]
            shown = [min(max(value, -self.options.clip), self.options.clip) for value in shown]
            residual = [r - 0.5 * s for r, s in zip(readings, shown, strict=True)]
            mean = math.fsum(w * r for w, r in zip(weights, residual, strict=True)) / whole
            variance = math.fsum(w * (r - mean) ** 2 for w, r in zip(weights, residual, strict=True)) / whole
            levels.append(mean)
            shakes.append(0.5 * math.log(variance + 0.01))
        return levels + shakes if self.options.dispersion else levels

    def apart(self, charted: list[float], mean: list[float], sigma: list[float]) -> list[float]:
        return [
            abs(c - m) / s if watched else 0.0
            for c, m, s, watched in zip(charted, mean, sigma, self.watched, strict=True)
        ]

    def judge(self, window: Rows) -> tuple[float, bool, dict[str, float]]:
        options, charted = self.options, self.charted(window)
        apart = self.apart(charted, self.mean, self.sigma)
        channels = [max(apart[k::3]) for k in range(3)]
        value = max(channels)
        alarm = value > self.threshold or (self.on and value > options.release * self.threshold)
        total = math.fsum(far * far for far in channels)
        share = {name: far * far / total for name, far in zip("abc", channels, strict=True)}
        on = alarm and options.release < 1
        if options.follow_rows is not None:
            calm = [far < options.follow_below * self.threshold for far in apart]
            if options.follow_gate == "all":
                calm = [all(calm) and not on] * len(calm)
            rate = min(1.0, PROFILE.window.stride / options.follow_rows)
            for k, may in enumerate(calm):
                if may:
                    moved = self.mean[k] + rate * (charted[k] - self.mean[k])
                    reach = options.leash * self.sigma[k]
                    self.mean[k] = min(max(moved, self.home[k] - reach), self.home[k] + reach)
        self.on = on
        return value, alarm, share


def readings(seed: int, count: int, wild: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    raw = np.array(NOMINAL) + np.array(SPREAD) * rng.normal(0, 1, (count, 6, 3))
    raw += wild * rng.normal(0, 1, (count, 1, 3)) * (rng.random((count, 1, 3)) < 0.3)
    # multiples of 1/64 are exact in float32
    return (np.round(raw * 64) / 64).astype(np.float32)


options = st.fixed_dictionaries(
    {
        "slow": st.sampled_from([(), ("b",), ("a", "c"), ("a", "b", "c")]),
        "clip": st.sampled_from([0.5, 4.0]),
        "memory_rows": st.sampled_from([0.5, 3.0, 100.0]),
        "quantile": st.sampled_from([0.5, 0.9, 0.99, 1.0]),
        "factor": st.sampled_from([0.8, 1.0, 1.5]),
        "follow_rows": st.sampled_from([None, 2.0, 30.0]),
        "follow_below": st.sampled_from([0.3, 0.8, 1.0]),
        "leash": st.sampled_from([0.2, 3.0]),
        "follow_gate": st.sampled_from(["all", "each"]),
        "spread": st.sampled_from(["whole", "held-out"]),
        "wander_rows": st.sampled_from([0.0, 60.0]),
        "dispersion": st.booleans(),
        "release": st.sampled_from([0.4, 1.0]),
    }
)


@settings(max_examples=60, deadline=None)
@given(given_options=options, seed=st.integers(0, 10**6), count=st.integers(MIN_WINDOWS, 27))
def test_fit_and_judgement_agree_with_the_slow_account(
    given_options: dict[str, Any], seed: int, count: int
) -> None:
    made = Scorer(ScoringRule(RULE_NAME, RULE_VERSION, given_options), PROFILE)
    normal, replay = readings(seed, count), readings(seed + 1, 12, wild=4.0)
    account = Account(made.options, normal.astype(float).tolist())

    fitted = made.fit(normal, halved)

    assert fitted.mean == pytest.approx(account.mean, rel=1e-4, abs=1e-5)
    assert fitted.sigma == pytest.approx(account.sigma, rel=1e-4)
    assert fitted.threshold == pytest.approx(account.threshold, rel=1e-4)
    assert (fitted.home, fitted.windows, fitted.alarming) == (fitted.mean, count, False)
    for window in replay:
        output = halved(made.transform(window[None], fitted))[0]
        score, fitted = made.judge(window, output, fitted)
        value, alarm, share = account.judge(window.astype(float).tolist())
        assert score.value == pytest.approx(value, rel=1e-3, abs=1e-4)
        if abs(value / account.threshold - 1) > 1e-3:
            assert score.alarm == alarm
        assert {part.channel: part.share for part in score.attribution} == pytest.approx(share, abs=1e-3)
        assert fitted.mean == pytest.approx(account.mean, rel=1e-3, abs=1e-3)


BAD_OPTIONS = [
    {"scaling": "private"}, {"centring": "none"}, {"clip": 0}, {"clip": -1}, {"clip": float("nan")}, {"memory_rows": 0},
    {"quantile": 0}, {"quantile": 1.01}, {"factor": 0}, {"factor": float("nan")}, {"follow_rows": 0},
    {"follow_below": -0.1}, {"follow_below": 1.1}, {"leash": 0}, {"follow_gate": "some"}, {"spread": "half"},
    {"wander_rows": -1}, {"release": 0}, {"release": 1.5}, {"drift_ratio": 0}, {"slow": "a"}, {"slow": [1]},
    {"slow": ["x"] * 10_000}, {"dispersion": "perhaps"}, {"unheard": 1}, {"quantile": None}, {"clip": [4]},
]  # fmt: skip


@pytest.mark.parametrize(
    "bad", BAD_OPTIONS, ids=lambda bad: f"{next(iter(bad))}={str(next(iter(bad.values())))[:12]}"
)
def test_an_option_out_of_bounds_is_refused_by_its_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"scoring rule {RULE_NAME}: ") as caught:
        read_rule(ScoringRule(RULE_NAME, RULE_VERSION, bad))

    assert next(iter(bad)) in str(caught.value)


def test_another_rule_is_named_beside_the_known_one() -> None:
    for rule in (ScoringRule("magic", 1, {}), ScoringRule(RULE_NAME, RULE_VERSION + 1, {})):
        with pytest.raises(
            ConfigError, match=rf"{rule.name} v{rule.version} is not known; this is {RULE_NAME} v"
        ):
            Scorer(rule, PROFILE)


def test_slow_channels_that_the_profile_lacks_are_named_in_order() -> None:
    rule = ScoringRule(RULE_NAME, RULE_VERSION, {"slow": ["z", "a", "y"]})

    with pytest.raises(ConfigError, match="slow channels y, z are not in profile 'pump'"):
        Scorer(rule, PROFILE)


def test_a_rule_that_scales_by_the_device_makes_no_input_before_it_is_fitted() -> None:
    made = Scorer(ScoringRule(RULE_NAME, RULE_VERSION, {"scaling": "device"}), PROFILE)

    with pytest.raises(ConfigError, match="fit it first"):
        made.transform(readings(0, 1))


@pytest.mark.parametrize("shape", [(4, 6, 2), (4, 6), (6, 3, 1, 1)])
def test_windows_of_another_shape_are_refused_by_it(shape: tuple[int, ...]) -> None:
    made = Scorer(ScoringRule(RULE_NAME, RULE_VERSION, {}), PROFILE)

    with pytest.raises(ContentError, match=r"expected \(n, rows, 3\)"):
        made.transform(np.zeros(shape, np.float32))


def test_one_window_fewer_than_needed_is_refused_and_just_enough_fits() -> None:
    made = Scorer(ScoringRule(RULE_NAME, RULE_VERSION, {}), PROFILE)

    with pytest.raises(ContentError, match=f"15 normal windows; scoring needs at least {MIN_WINDOWS}"):
        made.fit(readings(0, MIN_WINDOWS - 1), halved)
    assert made.fit(readings(0, MIN_WINDOWS), halved).windows == MIN_WINDOWS


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_alarm(value: float) -> None:
    assert make_score(value, 1.0, np.array([1.0]), ["a"]).alarm


def test_a_score_at_its_threshold_is_quiet_and_ties_keep_the_channels_order() -> None:
    score = make_score(2.0, 2.0, np.array([0.25, 0.5, 0.25]), ["a", "b", "c"])

    assert not score.alarm
    assert make_score(np.nextafter(2.0, 3.0), 2.0, np.ones(1), ["a"]).alarm
    assert [part.channel for part in score.attribution] == ["b", "a", "c"]


def test_what_was_fitted_survives_its_journey_to_disk_to_the_last_bit() -> None:
    made = Scorer(ScoringRule(RULE_NAME, RULE_VERSION, {"dispersion": True}), PROFILE)
    fitted = made.fit(readings(3, 20), halved)

    again = msgspec.json.decode(msgspec.json.encode(fitted), type=Fitted)

    assert again == fitted
    window = readings(4, 1)[0]
    assert made.score(window, np.zeros_like(window), again) == made.score(
        window, np.zeros_like(window), fitted
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    unit=st.sampled_from([0.125, 2.0, 64.0]),
    shift=st.integers(-8, 8),
    order=st.permutations(range(3)),
)
def test_the_baseline_does_not_care_for_units_or_the_order_of_channels(
    seed: int, unit: float, shift: int, order: list[int]
) -> None:
    normal, window = readings(seed, 12), readings(seed + 1, 1, wild=5.0)[0]
    plain = StatisticalBaseline(PROFILE)
    score = plain.score(window, plain.fit(normal))
    channels = tuple(
        msgspec.structs.replace(PROFILE.channel[k], spread=PROFILE.channel[k].spread * unit) for k in order
    )
    other = StatisticalBaseline(msgspec.structs.replace(PROFILE, channel=channels))

    def told(raw: np.ndarray) -> np.ndarray:
        return raw[..., order].astype(np.float64) * unit + shift

    found = other.score(told(window), other.fit(told(normal)))

    assert found.value == pytest.approx(score.value, rel=1e-6)
    assert {part.channel: part.share for part in found.attribution} == pytest.approx(
        {part.channel: part.share for part in score.attribution}, abs=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(4, 15))
def test_the_baseline_is_the_median_and_its_deviation(seed: int, count: int) -> None:
    normal = readings(seed, count)
    weights = [math.exp(-age / 10) for age in range(5, -1, -1)]

    fitted = StatisticalBaseline(PROFILE).fit(normal)

    for k in range(3):
        levels = [
            math.fsum(w * float(v) for w, v in zip(weights, window[:, k], strict=True)) / math.fsum(weights)
            for window in normal
        ]
        median = statistics.median(levels)
        spread = 1.4826 * statistics.median(abs(level - median) for level in levels)
        assert fitted.median[k] == pytest.approx(median, abs=1e-9)
        assert fitted.spread[k] == pytest.approx(max(spread, 1e-3 * SPREAD[k]), rel=1e-6)
