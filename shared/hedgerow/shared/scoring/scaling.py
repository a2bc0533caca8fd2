"""From raw readings to model input: scaling, centring of drifting channels, clipping."""

from __future__ import annotations

import numpy as np

from hedgerow.shared.scoring.values import Doubles, Floats

FLOOR = 1e-3
"""Smallest scale, as a share of a channel's public spread: a frozen sensor must not make every digit an anomaly."""


def device_scaling(windows: Doubles, spread: Doubles) -> tuple[Doubles, Doubles]:
    """Return centre and scale per channel, ``(c,)`` each, of a device's normal windows ``(n, rows, c)``."""
    centre = windows.mean(axis=(0, 1))
    scale = windows.std(axis=(0, 1))
    return centre, np.maximum(scale, FLOOR * spread)


def drift_ratios(windows: Doubles, spread: Doubles) -> Doubles:
    """Return per channel the variance of window means over the mean variance inside a window, ``(c,)``.

    White readings give about 1 / rows; a channel that wanders slower than a window gives more than it shows inside.
    """
    inside = windows.var(axis=1).mean(axis=0)
    between = windows.mean(axis=1).var(axis=0)
    ratios: Doubles = between / np.maximum(inside, (FLOOR * spread) ** 2)
    return ratios


def scaled(windows: Doubles, centre: Doubles, scale: Doubles) -> Doubles:
    """Return windows ``(n, rows, c)`` in units of ``scale`` about ``centre``."""
    result: Doubles = (windows - centre) / scale
    return result


def model_input(scaled_windows: Doubles, centred: Doubles, clip: float) -> Floats:
    """Return scaled windows as the model sees them, float32: channels with ``centred`` 1 less their mean in the
    window, all clipped, so that int8 ranges are known beforehand.
    """
    levelled = scaled_windows - centred * scaled_windows.mean(axis=1, keepdims=True)
    clipped: Floats = np.clip(levelled, -clip, clip).astype(np.float32)
    return clipped
