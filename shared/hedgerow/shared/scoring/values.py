"""The values of scoring: what a rule may say, what a device fits and keeps, what one window's score is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from hedgerow.shared import limits
from hedgerow.shared.messages import ChannelShare

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Predict = Callable[[Floats], Floats]
Vector = Annotated[tuple[float, ...], Meta(max_length=limits.MAX_CHANNELS)]
Charted = Annotated[tuple[float, ...], Meta(max_length=2 * limits.MAX_CHANNELS)]
Flags = Annotated[tuple[bool, ...], Meta(max_length=limits.MAX_CHANNELS)]
Positive = Annotated[float, Meta(gt=0)]


class ChartOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the residual chart, a bundle's ``ScoringRule.options``.

    Model input: ``scaling`` ``public`` scales by the profile's nominal and spread, ``device`` by the device's own normal
    windows; ``centring`` ``window`` takes each channel's mean in the window away, ``fixed`` only that of channels that
    drift; the result is clipped to ``clip``. Drifting are the channels named ``slow`` and, with ``drift_ratio``, those
    whose window means vary that many times as much as the readings inside a window; they are shown to the model
    and not judged. The chart remembers ``memory_rows`` rows; its threshold is ``factor`` times the ``quantile`` of
    normal windows' cross-validated scores. Where it is normal moves with the machine, over ``follow_rows`` rows (None:
    never), while scores are below ``follow_below`` thresholds, and at most ``leash`` standard deviations away.

    ``spread`` says which deviation is one standard deviation: ``whole`` about the mean of all normal windows,
    ``held-out`` of each stretch of time about the mean of the others, so that a level that wandered during the fit
    is expected to wander on. ``wander_rows`` widens it by what the channel is expected to wander in that many rows.
    With ``follow_gate`` ``each`` every channel follows while it is itself below ``follow_below``, with ``all`` while
    all are and no alarm is on. ``dispersion`` adds a chart of how much the residual varies inside the window. An
    alarm that is on stays on down to ``release`` thresholds (1: no deadband).
    """

    scaling: Literal["public", "device"] = "public"
    centring: Literal["fixed", "window"] = "fixed"
    slow: Annotated[tuple[str, ...], Meta(max_length=limits.MAX_CHANNELS)] = ()
    drift_ratio: Positive | None = None
    clip: Positive = 4.0
    memory_rows: Positive = 10.0
    quantile: Annotated[float, Meta(gt=0, le=1)] = 0.99
    factor: Positive = 1.0
    follow_rows: Positive | None = None
    follow_below: Annotated[float, Meta(ge=0, le=1)] = 0.5
    leash: Positive = 3.0
    follow_gate: Literal["all", "each"] = "all"
    spread: Literal["whole", "held-out"] = "whole"
    wander_rows: Annotated[float, Meta(ge=0)] = 0.0
    dispersion: bool = False
    release: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Fitted(msgspec.Struct, frozen=True):
    """What one device learned from its own normal windows; it stays on the device.

    ``centre`` and ``scale`` make model input, ``drifting`` marks channels that are not judged; ``mean`` and ``sigma``
    describe the charted statistics of normal windows (the smoothed residual per channel, then, if charted, its
    dispersion per channel), ``home`` is the mean as first fitted. ``alarming``: an alarm is on, below its threshold too.
    """

    rule: str
    version: int
    centre: Vector
    scale: Vector
    drifting: Flags
    mean: Charted
    sigma: Charted
    home: Charted
    threshold: float
    windows: int
    alarming: bool = False


class Score(msgspec.Struct, frozen=True):
    """One window's anomaly score. ``attribution`` holds every channel, largest share first; shares add up to 1."""

    value: float
    threshold: float
    alarm: bool
    attribution: tuple[ChannelShare, ...]
