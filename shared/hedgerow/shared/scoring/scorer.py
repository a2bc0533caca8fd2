"""The scorer: interprets a bundle's rule for one profile, fits on a device's normal windows, scores one window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared.bundle import ScoringRule
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.messages import ChannelShare
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import chart, scaling
from hedgerow.shared.scoring.values import ChartOptions, Doubles, Fitted, Floats, Predict, Score

RULE_NAME = "residual-chart"
RULE_VERSION = 1
MIN_WINDOWS = 16
MAX_RESIDUAL = 1e6

Windows = npt.NDArray[np.generic]


class Scaling(NamedTuple):
    """How raw windows become model input; ``drifting`` and ``centred`` hold 1 or 0 per channel, all ``(c,)``."""

    centre: Doubles
    scale: Doubles
    drifting: Doubles
    centred: Doubles


class Scorer:
    """Makes model input and anomaly scores for one profile by one rule; holds no fitted value."""

    def __init__(self, rule: ScoringRule, profile: DeviceProfile) -> None:
        """Raises ConfigError if the rule is unknown, or names a channel that the profile lacks."""
        self.options = read_rule(rule)
        self.channels = profile.channels
        self._stride_rows = profile.window.stride
        self._nominal = np.array([channel.nominal for channel in profile.channel], np.float64)
        self._spread = np.array([channel.spread for channel in profile.channel], np.float64)
        unknown = sorted(set(self.options.slow) - set(self.channels))
        if unknown:
            raise ConfigError(f"slow channels {', '.join(unknown)} are not in profile {profile.name!r}")
        self._slow = np.array([name in self.options.slow for name in self.channels], np.float64)

    def fit(self, windows: Windows, predict: Predict) -> Fitted:
        """Return what the device's normal raw windows ``(n, rows, c)``, in order of time, say of it.

        ``predict`` is the model that will serve, so that its quantisation error counts as normal.
        Raises ContentError with fewer than ``MIN_WINDOWS`` windows, or when the model answers with non-finite values.
        """
        raw = self._checked(windows)
        if len(raw) < MIN_WINDOWS:
            raise ContentError(f"{len(raw)} normal windows; scoring needs at least {MIN_WINDOWS} to fit on")
        made = self.fit_scaling(raw)
        smoothed = self._smoothed(raw, predict(self._input(raw, made)), made)
        describe = chart.DESCRIBE[self.options.spread]
        mean, sigma = describe(smoothed)
        wander = chart.wander_rate(smoothed) * (self.options.wander_rows / self._stride_rows)
        sigma = chart.widened(sigma, wander)
        scores = chart.cross_validated(smoothed, self._watched(made.drifting), describe, wander)
        return Fitted(
            rule=RULE_NAME,
            version=RULE_VERSION,
            centre=tuple(made.centre.tolist()),
            scale=tuple(made.scale.tolist()),
            drifting=tuple(bool(flag) for flag in made.drifting),
            mean=tuple(mean.tolist()),
            sigma=tuple(sigma.tolist()),
            home=tuple(mean.tolist()),
            threshold=self.options.factor * float(np.quantile(scores, self.options.quantile)),
            windows=len(raw),
        )

    def fit_scaling(self, windows: Windows) -> Scaling:
        """Return how to make model input; with ``public`` scaling that does not depend on the windows."""
        raw, options = self._checked(windows), self.options
        drifting = self._slow
        if options.drift_ratio is not None and len(raw):
            found = scaling.drift_ratios(raw, self._spread) > options.drift_ratio
            drifting = np.maximum(drifting, found.astype(np.float64))
        if options.scaling == "public":
            return self._with_centring(self._nominal, self._spread, drifting)
        centre, scale = scaling.device_scaling(raw, self._spread)
        return self._with_centring(centre, scale, drifting)

    def transform(self, windows: Windows, fitted: Fitted | None = None) -> Floats:
        """Return raw windows ``(n, rows, c)`` as model input, float32 of the same shape.

        Each window depends on itself and on the scaling alone. Raises ConfigError without ``fitted`` where the rule
        scales by the device.
        """
        return self._input(self._checked(windows), self._scaling_of(fitted))

    def transform_with(self, windows: Windows, made: Scaling) -> Floats:
        """Return raw windows as model input under what ``fit_scaling`` gave: how training prepares its examples."""
        return self._input(self._checked(windows), made)

    def score(self, window: Windows, output: Floats, fitted: Fitted) -> Score:
        """Return the score of one raw window ``(rows, c)`` given the model's ``output`` for it, same shape.

        Raises ContentError if window or output are not finite, or of another shape.
        """
        return self.judge(window, output, fitted)[0]

    def judge(self, window: Windows, output: Floats, fitted: Fitted) -> tuple[Score, Fitted]:
        """Return ``score``, and what is normal from the next window on.

        The second is ``fitted`` itself, unless the rule follows the machine and this window is clearly normal (then
        the mean moves a little), or has a deadband and an alarm begins or ends. Scoring a replay in order gives bit for bit what the device saw live.
        """
        made = self._scaling_of(fitted)
        smoothed = self._smoothed(self._checked(window[None]), output[None].reshape(1, *window.shape), made)[
            0
        ]
        mean, sigma = np.array(fitted.mean), np.array(fitted.sigma)
        apart = chart.deviations(smoothed, mean, sigma, self._watched(made.drifting))
        found = self._found(apart, fitted)
        on = found.alarm and self.options.release < 1
        if on != fitted.alarming:
            fitted = msgspec.structs.replace(fitted, alarming=on)
        return found, self._following(fitted, smoothed, apart, on)

    def _following(self, fitted: Fitted, smoothed: Doubles, apart: Doubles, on: bool) -> Fitted:
        """Return what is normal after a window with these statistics and deviations, both ``(c,)`` or ``(2c,)``."""
        rows = self.options.follow_rows
        if rows is None:
            return fitted
        calm = apart < self.options.follow_below * fitted.threshold
        if self.options.follow_gate == "all":
            calm = np.full(len(apart), not on and bool(calm.all()))
        if not calm.any():
            return fitted
        mean, home, sigma = np.array(fitted.mean), np.array(fitted.home), np.array(fitted.sigma)
        rate: Doubles = min(1.0, self._stride_rows / rows) * calm.astype(np.float64)
        moved = chart.followed(mean, smoothed, rate, home, self.options.leash * sigma)
        return msgspec.structs.replace(fitted, mean=tuple(moved.tolist()))

    def judge_all(self, windows: Windows, outputs: Floats, fitted: Fitted) -> tuple[list[Score], Fitted]:
        """Return ``judge`` of windows ``(n, rows, c)`` in order of time: bit for bit what one at a time gives."""
        scores = []
        for window, output in zip(windows, outputs, strict=True):
            found, fitted = self.judge(window, output, fitted)
            scores.append(found)
        return scores, fitted

    def _found(self, apart: Doubles, fitted: Fitted) -> Score:
        """Return the score of the charts' deviations; a channel is as far as the further of its charts."""
        channelwise = apart.reshape(-1, len(self.channels)).max(axis=0)
        value = float(channelwise.max())
        found = make_score(value, fitted.threshold, chart.shares(channelwise), self.channels)
        if fitted.alarming and value > self.options.release * fitted.threshold:
            return msgspec.structs.replace(found, alarm=True)
        return found

    def _watched(self, drifting: Doubles) -> Doubles:
        watched = _watched(drifting)
        return np.concatenate([watched, watched]) if self.options.dispersion else watched

    def _with_centring(self, centre: Doubles, scale: Doubles, drifting: Doubles) -> Scaling:
        if self.options.centring == "window":
            return Scaling(centre, scale, drifting, np.ones_like(drifting))
        public = self.options.scaling == "public"
        return Scaling(centre, scale, drifting, self._slow if public else drifting)

    def _scaling_of(self, fitted: Fitted | None) -> Scaling:
        if fitted is not None:
            drifting = np.array(fitted.drifting, np.float64)
            return self._with_centring(np.array(fitted.centre), np.array(fitted.scale), drifting)
        if self.options.scaling == "device":
            raise ConfigError("this rule scales by the device's own normal windows: fit it first")
        return self._with_centring(self._nominal, self._spread, self._slow)

    def _input(self, raw: Doubles, made: Scaling) -> Floats:
        return scaling.model_input(
            scaling.scaled(raw, made.centre, made.scale), made.centred, self.options.clip
        )

    def _smoothed(self, raw: Doubles, output: Floats, made: Scaling) -> Doubles:
        """Return the smoothed residual per channel, ``(n, c)``: of the readings as they are, neither centred nor
        clipped, so that a lasting shift and one beyond the model's range count in full. With ``dispersion`` that of
        each channel follows, ``(n, 2c)``.
        """
        residual = scaling.scaled(raw, made.centre, made.scale) - output
        if not np.isfinite(residual).all():
            raise ContentError("the model answered with values that are not finite")
        bounded = np.clip(residual, -MAX_RESIDUAL, MAX_RESIDUAL)
        weights = chart.memory_weights(bounded.shape[1], self.options.memory_rows)
        smoothed = np.stack([chart.smooth(window, weights) for window in bounded])
        if not self.options.dispersion:
            return smoothed
        spread = np.stack([chart.dispersion(window, weights) for window in bounded])
        return np.concatenate([smoothed, spread], axis=1)

    def _checked(self, windows: Windows) -> Doubles:
        if windows.ndim != 3 or windows.shape[2] != len(self.channels):
            raise ContentError(f"windows of shape {windows.shape}; expected (n, rows, {len(self.channels)})")
        raw = windows.astype(np.float64)
        if not np.isfinite(raw).all():
            raise ContentError("a window holds values that are not finite")
        return raw


def read_rule(rule: ScoringRule) -> ChartOptions:
    """Return the options of ``rule``. Raises ConfigError if its name, version or options are not known here."""
    if (rule.name, rule.version) != (RULE_NAME, RULE_VERSION):
        raise ConfigError(
            f"scoring rule {rule.name} v{rule.version} is not known; this is {RULE_NAME} v{RULE_VERSION}"
        )
    try:
        return msgspec.convert(rule.options, ChartOptions, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"scoring rule {rule.name}: {error}") from error


def make_score(value: float, threshold: float, share: Doubles, channels: Sequence[str]) -> Score:
    """Return a score with its attribution, largest share first. A value that is not finite counts as an alarm."""
    order = np.argsort(-share, kind="stable")
    attribution = tuple(ChannelShare(channels[index], float(share[index])) for index in order)
    return Score(value, threshold, not math.isfinite(value) or value > threshold, attribution)


def _watched(drifting: Doubles) -> Doubles:
    """Return 1 for channels that are judged: all but the drifting ones, or all where every one drifts."""
    return np.ones_like(drifting) if drifting.all() else 1 - drifting
