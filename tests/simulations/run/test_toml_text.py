"""Values as TOML, held to the parser of the standard library: whatever a field may hold comes back as it was."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.run.toml_text import changed, toml_of, toml_value
from hedgerow.simulations.scenario.spec import Scenario

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
plain = st.booleans() | numbers | texts
lists = st.lists(plain, max_size=4)
leaves = plain | lists | st.lists(st.lists(plain, max_size=2), max_size=2)
tables = st.recursive(
    st.dictionaries(texts, leaves, max_size=4),
    lambda inner: st.dictionaries(
        texts, leaves | inner | st.lists(inner, min_size=1, max_size=2), max_size=3
    ),
    max_leaves=8,
)


@given(plain)
def test_every_text_and_number_comes_back_with_its_type(value: Any) -> None:
    found = tomllib.loads(f"v = {toml_value(value)}")["v"]
    assert (type(found), found) == (type(value), value)


@given(tables)
@settings(deadline=None)
def test_every_table_comes_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml_of(table)) == table


@pytest.mark.parametrize(
    "text",
    ["\x7f", "\x00", "a\x1fb", "\u0085", "\u2028", "🌿", "e\u0301", '"""', "'''", "\\u0041", "\r\n", "", " x ", "#no"],
)  # fmt: skip
def test_texts_that_writers_of_toml_stumble_over(text: str) -> None:
    assert tomllib.loads(f"v = {toml_value(text)}") == {"v": text}
    assert tomllib.loads(toml_of({text: 1, "t": {text: 2}})) == {text: 1, "t": {text: 2}}


def test_a_key_with_a_line_behind_it_is_no_bare_key() -> None:
    assert tomllib.loads(toml_of({"a\n": 1})) == {"a\n": 1}


def test_nothing_is_no_value_and_is_left_out() -> None:
    assert toml_of({"a": None, "b": 1}) == "b = 1\n"


@pytest.mark.parametrize("value", [None, b"bytes", {1, 2}, 1j])
def test_what_toml_has_no_word_for_is_refused_by_its_type(value: Any) -> None:
    with pytest.raises(TypeError, match=f"TOML has no {type(value).__name__}"):
        toml_value(value)


names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)
positive = st.floats(1e-9, 1e9)


@given(
    name=names,
    description=texts,
    seed=st.integers(0, 2**63 - 1),
    rate=st.floats(1e-9, 1.0),
    classes=st.lists(st.tuples(names, positive), min_size=1, max_size=3),
    options=st.dictionaries(texts, plain, max_size=3),
    fields=st.dictionaries(texts, lists, max_size=2),
)
@settings(deadline=None)
def test_whatever_scenario_it_is_a_written_one_is_the_same(
    name: str,
    description: str,
    seed: int,
    rate: float,
    classes: list[tuple[str, float]],
    options: dict[str, Any],
    fields: dict[str, list[Any]],
) -> None:
    job = {
        "name": "job",
        "recipe": "mlp",
        "privacy": {"mode": "none"},
        "training": {"learning_rate": rate},
        "parameters": options,
    }
    table = {
        "name": name,
        "description": description,
        "seed": seed,
        "job": job,
        "population": {"devices": 3, "options": options},
        "device_class": [{"name": one, "share": share} for one, share in classes],
        "sweep": {"fields": fields},
    }
    scenario = from_table(table, Scenario, "made")
    again = from_table(tomllib.loads(toml_of(changed(scenario))), Scenario, "again")
    assert msgspec.to_builtins(again) == msgspec.to_builtins(scenario)
