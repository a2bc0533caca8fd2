"""The residual chart: per channel an exponentially weighted mean of the residual, and the furthest one counts.

An EWMA chart (Roberts 1959, "Control chart tests based on geometric moving averages") per channel, its memory cut at
the window, so that a score is a function of one window. A fault mostly starts in one channel, and against one
channel of many the largest deviation is a sharper test than their sum. Readings are not independent in time, so the
limits come from the device's normal windows, never from a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from hedgerow.shared.scoring.values import Doubles

Describe = Callable[[Doubles], tuple[Doubles, Doubles]]

FOLDS = 4
"""Stretches of time for cross-validation: a limit is set by windows that its mean and spread were not fitted on."""
SIGMA_FLOOR = 0.02
"""Smallest spread of a smoothed residual, in scaled units: a channel that never moves must not set off at one digit."""

DISPERSION_FLOOR = 0.1
"""Smallest deviation inside a window that counts, in scaled units: below a tenth of the normal one is rounding."""


def memory_weights(rows: int, memory_rows: float) -> Doubles:
    """Return the weights of a window's rows, oldest first, ``(rows,)``; they add up to 1."""
    weights = np.exp(-np.arange(rows - 1, -1, -1, dtype=np.float64) / memory_rows)
    normalised: Doubles = weights / weights.sum()
    return normalised


def smooth(residual: Doubles, weights: Doubles) -> Doubles:
    """Return the weighted residual per channel of one window ``(rows, c)`` as ``(c,)``."""
    smoothed: Doubles = (residual * weights[:, None]).sum(axis=0)
    return smoothed


def dispersion(residual: Doubles, weights: Doubles) -> Doubles:
    """Return the logarithm of the weighted standard deviation per channel of one window ``(rows, c)`` as ``(c,)``.

    The logarithm makes twice and half as much equally far from normal (MacGregor and Harris 1993, "The exponentially
    weighted moving variance", chart the variance itself).
    """
    apart = residual - smooth(residual, weights)
    variance = smooth(apart**2, weights)
    level: Doubles = 0.5 * np.log(variance + DISPERSION_FLOOR**2)
    return level


def describe(smoothed: Doubles) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation, ``(c,)`` each, of normal smoothed residuals ``(n, c)``."""
    return smoothed.mean(axis=0), np.maximum(smoothed.std(axis=0), SIGMA_FLOOR)


def describe_held_out(smoothed: Doubles) -> tuple[Doubles, Doubles]:
    """Return mean and spread, ``(c,)`` each, of normal smoothed residuals ``(n, c)`` in order of time.

    The spread is the root mean square of each stretch about the mean of the others: for a level that wanders it is
    wider than the standard deviation, as what comes after the fit will be too.
    """
    n = len(smoothed)
    errors = np.empty_like(smoothed)
    for stretch in np.array_split(np.arange(n), FOLDS):
        errors[stretch] = smoothed[stretch] - np.delete(smoothed, stretch, axis=0).mean(axis=0)
    return smoothed.mean(axis=0), np.maximum(np.sqrt((errors**2).mean(axis=0)), SIGMA_FLOOR)


def wander_rate(smoothed: Doubles) -> Doubles:
    """Return by how much the variance of each channel's level grows per window, ``(c,)``, at least 0.

    From normal smoothed residuals ``(n, c)`` in order of time, by the growth of mean squared differences from a lag of
    an eighth of them to one of a half (a variogram's slope; Cressie 1993, "Statistics for Spatial Data", section 2.4).
    For a random walk about which readings scatter it is the variance of a step, whatever the scatter.
    """
    near, far = max(1, len(smoothed) // 8), len(smoothed) // 2
    growth = _mean_square_difference(smoothed, far) - _mean_square_difference(smoothed, near)
    rate: Doubles = np.maximum(growth, 0) / max(1, far - near)
    return rate


def _mean_square_difference(smoothed: Doubles, lag: int) -> Doubles:
    squares: Doubles = ((smoothed[lag:] - smoothed[:-lag]) ** 2).mean(axis=0)
    return squares


DESCRIBE: Final[dict[str, Describe]] = {"whole": describe, "held-out": describe_held_out}
"""By the option ``spread``."""


def deviations(smoothed: Doubles, mean: Doubles, sigma: Doubles, watched: Doubles) -> Doubles:
    """Return how many standard deviations each watched channel is from normal, at least 0; unwatched ones are 0."""
    apart: Doubles = watched * np.abs(smoothed - mean) / sigma
    return apart


def widened(sigma: Doubles, wander: Doubles) -> Doubles:
    """Return deviations ``(c,)`` widened by a variance of expected wander ``(c,)``."""
    wide: Doubles = np.sqrt(sigma**2 + wander)
    return wide


def cross_validated(
    smoothed: Doubles, watched: Doubles, fit: Describe = describe, wander: Doubles | None = None
) -> Doubles:
    """Return the scores ``(n,)`` of normal residuals ``(n, c)``, in order of time, each stretch by the others' fit.

    ``wander`` ``(c,)`` is a variance that widens every stretch's deviations: by time, not by what was left out.
    """
    n = len(smoothed)
    scores = np.empty(n, np.float64)
    for stretch in np.array_split(np.arange(n), FOLDS):
        mean, sigma = fit(np.delete(smoothed, stretch, axis=0))
        if wander is not None:
            sigma = widened(sigma, wander)
        scores[stretch] = deviations(smoothed[stretch], mean, sigma, watched).max(axis=1)
    return scores


def shares(apart: Doubles) -> Doubles:
    """Return each channel's share of a score from its deviation, ``(c,)``, at least 0, adding up to 1."""
    squares = np.minimum(apart, 1e100) ** 2
    total = float(squares.sum())
    if total <= 0:
        return np.full(len(squares), 1 / len(squares))
    share: Doubles = squares / total
    return share


def followed(
    mean: Doubles, smoothed: Doubles, rate: float | Doubles, home: Doubles, reach: Doubles
) -> Doubles:
    """Return ``mean`` moved by ``rate`` towards ``smoothed``, within ``reach`` of ``home``; all ``(c,)``."""
    moved: Doubles = np.clip(mean + rate * (smoothed - mean), home - reach, home + reach)
    return moved
