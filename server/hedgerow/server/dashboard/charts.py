"""Charts as plain geometry, so that templates only draw: pure functions from numbers to SVG coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

WIDTH = 640
HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 28
_SMALLEST, _LARGEST = 1e-300, 1e300


class Tick(msgspec.Struct, frozen=True):
    """One labelled grid line at ``position`` (pixels along its axis)."""

    position: float
    label: str


class LineChart(msgspec.Struct, frozen=True):
    """A line over rounds: SVG ``points``, the last point, ticks of both axes, and the plot's edges in pixels."""

    title: str
    points: str
    last_x: float
    last_y: float
    last_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def line_chart(
    title: str, xs: Sequence[float], ys: Sequence[float], *, floor: float | None = None
) -> LineChart | None:
    """Return the chart of finite points ``(xs, ys)``, None when there is none; ``floor`` extends the y axis down."""
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not pairs:
        return None
    x_low, x_high = pairs[0][0], max(pairs[-1][0], pairs[0][0] + 1)
    values = [y for _, y in pairs] + ([floor] if floor is not None else [])
    y_marks = nice_ticks(min(values), max(values))
    y_low, y_high = y_marks[0], y_marks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        """Return a point's place in the SVG, in pixels from its upper left corner."""
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return (
            round(_LEFT + across * (WIDTH - _LEFT - _RIGHT), 1),
            round(HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM), 1),
        )

    placed = [place(x, y) for x, y in pairs]
    marks = sorted({round(x_low + i * (x_high - x_low) / 5) for i in range(6)})
    return LineChart(
        title=title,
        points=" ".join(f"{x},{y}" for x, y in placed),
        last_x=placed[-1][0],
        last_y=placed[-1][1],
        last_label=f"{pairs[-1][1]:.4g}",
        x_ticks=tuple(Tick(place(x, y_low)[0], f"{x:.0f}") for x in marks),
        y_ticks=tuple(Tick(place(x_low, y)[1], f"{y:.4g}") for y in y_marks),
    )


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return evenly spaced round numbers from at most ``low`` to at least ``high``; at least two.

    Values closer than floats can draw apart are drawn as one. Magnitudes above 1e300 are cut to it.
    """
    low, high = (max(-_LARGEST, min(_LARGEST, value)) for value in (low, high))
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < _SMALLEST:
        pad = max(abs(low), abs(high)) * 0.1
        pad = pad if pad > _SMALLEST else 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [n * step for n in range(first, last + 1)]
