"""Times in payloads and files as microseconds since 1970, in whole numbers so that every path rounds alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

TimeUnit = Literal["iso8601", "s", "ms", "us"]
MAX_TIME_US: Final = 253_402_300_799_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SCALE: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_MAX_TEXT: Final = 64


def parse_time(value: object, unit: TimeUnit) -> int:
    """Return a payload's time in microseconds. Raises ValueError if it is none, or outside the years 1970 to 9999."""
    if unit == "iso8601":
        if not isinstance(value, str):
            raise ValueError("is not a text in ISO 8601")
        return parse_text_time(value, "iso8601")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"is not a number of {unit}")
    return _bounded(_scaled(value, _SCALE[unit]))


def parse_text_time(text: str, layout: str) -> int:
    """Return a file's time in microseconds; ``layout`` is a unit or a ``strptime`` format. Raises ValueError."""
    if len(text) > _MAX_TEXT:
        raise ValueError("is too long for a time")
    if layout in _SCALE:
        number: int | float
        try:
            number = int(text)
        except ValueError:
            number = float(text)
        return _bounded(_scaled(number, _SCALE[layout]))
    moment = datetime.fromisoformat(text) if layout == "iso8601" else datetime.strptime(text, layout)  # noqa: DTZ007
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _bounded((moment - _EPOCH) // _MICROSECOND)


def _scaled(number: int | float, scale: int) -> int:
    try:
        return number * scale if isinstance(number, int) else round(number * scale)
    except OverflowError as error:
        raise ValueError("is not finite") from error


def _bounded(time_us: int) -> int:
    if not 0 <= time_us <= MAX_TIME_US:
        raise ValueError("lies outside the years 1970 to 9999")
    return time_us
