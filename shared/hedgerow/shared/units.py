"""The unit spellings that profiles may use: one spelling per unit (the litre has two, as in the SI)."""

from __future__ import annotations

from typing import Final

# fmt: off
UNITS: Final[frozenset[str]] = frozenset({
    "1", "%", "bool", "count", "ppm", "ppb", "dB", "dBm",
    "degC", "degF", "K",
    "Pa", "hPa", "kPa", "MPa", "bar", "mbar", "psi",
    "V", "mV", "kV", "A", "mA", "W", "kW", "MW", "VA", "kVA", "var", "Wh", "kWh", "Ohm", "kOhm", "F", "H", "C",
    "Hz", "kHz", "rpm", "rad/s", "deg", "rad",
    "m", "mm", "cm", "km", "um", "m/s", "mm/s", "km/h", "m/s2", "g",
    "L/min", "l/min", "L/h", "l/h", "L/s", "l/s", "m3/h", "m3/s", "m3", "L", "l", "mL",
    "kg", "t", "gram", "N", "kN", "Nm",
    "us", "ms", "s", "min", "h", "d",
    "lx", "lm", "cd", "W/m2", "g/m3", "ug/m3", "mg/m3", "mg/L", "uS/cm", "mS/cm", "pH", "NTU",
    "B", "KiB", "MiB", "B/s", "bit/s",
})
# fmt: on

_ALIASES: Final[dict[str, str]] = {
    "°c": "degC",
    "c°": "degC",
    "celsius": "degC",
    "°f": "degF",
    "fahrenheit": "degF",
    "kelvin": "K",
    "percent": "%",
    "volt": "V",
    "volts": "V",
    "amp": "A",
    "amps": "A",
    "ampere": "A",
    "watt": "W",
    "hertz": "Hz",
    "m/s^2": "m/s2",
    "m/s²": "m/s2",
    "lpm": "L/min",
    "l/m": "L/min",
    "µm": "um",
    "µs": "us",
    "m³/h": "m3/h",
    "ω": "Ohm",
    "°": "deg",
    "lux": "lx",
    "µg/m³": "ug/m3",
    "µs/cm": "uS/cm",
    "none": "1",
    "": "1",
}


def unit_hint(unit: str) -> str | None:
    """Return the allowed spelling closest to ``unit``, or None where nothing is close."""
    lower = (
        unit.strip().lower().replace("\u03bc", "\u00b5")
    )  # the Greek letter for the micro sign: they look the same
    if lower in _ALIASES:
        return _ALIASES[lower]
    folded = {known.lower(): known for known in sorted(UNITS)}
    if lower in folded:
        return folded[lower]
    from difflib import get_close_matches

    close = get_close_matches(lower, list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None
