"""Numbers and times as people read them: pure filters for the templates."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(n: int | float | None) -> str:
    """Return bytes in powers of 1000: ``1.2 MB``; a dash for None."""
    if n is None:
        return "–"
    value = float(n)
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise ValueError(n)


def when(us: int | None) -> str:
    """Return UTC microseconds as ``2026-01-02 03:04:05 UTC``; a dash for None, ``no date`` for what no calendar holds.

    A device's clock may say anything, and one event of it must not take the page away.
    """
    if us is None:
        return "–"
    try:
        return datetime.fromtimestamp(us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "no date"


def whole(n: int | None) -> str:
    """Return a count; a dash for None."""
    return "–" if n is None else str(n)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits; a dash for None."""
    return "–" if value is None else f"{value:.{digits}g}"


def micros(value: float | None) -> str:
    """Return microseconds as µs or ms; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.1f} ms"
