"""One spelling per unit, and a hint for the others."""

from __future__ import annotations

import pytest

from hedgerow.shared.units import UNITS, unit_hint


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("°C", "degC"),
        ("celsius", "degC"),
        ("kpa", "kPa"),
        ("Volts", "V"),
        ("m/s²", "m/s2"),
        ("rpms", "rpm"),
        ("", "1"),
    ],
)
def test_the_nearest_spelling_is_offered(given: str, hint: str) -> None:
    assert given not in UNITS
    assert unit_hint(given) == hint


def test_nothing_is_offered_for_nonsense() -> None:
    assert unit_hint("qqqqqqqqqqqq") is None


def test_a_hint_is_always_an_allowed_unit() -> None:
    for text in [*map(str.upper, UNITS), "degr", "bars", "hz"]:
        assert unit_hint(text) in UNITS
