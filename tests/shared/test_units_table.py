"""Units: every spelling is one, hints lead to allowed spellings whatever is typed, and nobody is led astray by case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared.units import _ALIASES, UNITS, unit_hint


@given(st.text(max_size=30))
def test_whatever_is_typed_the_hint_is_an_allowed_unit_or_none(text: str) -> None:
    hint = unit_hint(text)

    assert hint is None or hint in UNITS


@pytest.mark.parametrize("alias", sorted(_ALIASES))
def test_every_alias_is_lower_case_leads_to_a_unit_and_is_none_itself(alias: str) -> None:
    assert alias == alias.lower()
    assert alias not in UNITS
    assert unit_hint(alias) == unit_hint(f"  {alias.upper()} ") == _ALIASES[alias]
    assert _ALIASES[alias] in UNITS


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_a_unit_in_the_wrong_case_is_led_to_one_that_differs_in_case_alone(unit: str) -> None:
    for typed in (unit.upper(), unit.lower(), f" {unit} "):
        hint = unit_hint(typed)
        assert hint is not None
        assert hint.lower() == typed.strip().lower() or typed.strip().lower() in _ALIASES


@pytest.mark.parametrize(
    ("typed", "hint"), [("\u03bcm", "um"), ("\u00b5m", "um"), ("\u03bcS/cm", "uS/cm"), ("\u2126", "Ohm")]
)
def test_signs_that_look_the_same_lead_to_the_same_unit(typed: str, hint: str) -> None:
    """A Greek mu for the micro sign must not lead to a unit a million times as large."""
    assert unit_hint(typed) == hint


def test_a_hint_does_not_depend_on_the_order_of_a_set() -> None:
    """``MW`` and ``mW`` would fold to one word: where two units differ in case alone, the hint is the same each time."""
    assert {unit_hint("kpa") for _ in range(5)} == {"kPa"}
    for unit in UNITS:
        assert len({unit_hint(unit.swapcase()) for _ in range(3)}) == 1


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_a_spelling_fits_a_profile_and_holds_no_space(unit: str) -> None:
    assert 1 <= len(unit) <= 24
    assert unit.isascii()
    assert unit == "".join(unit.split())
