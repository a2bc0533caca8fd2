"""What a checkpoint belongs to: the hash of a scenario changes with everything that decides a run and with nothing else."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from tests.support.simulation_scenarios import scenario

from hedgerow.simulations.run.results import scenario_sha256
from hedgerow.simulations.scenario.spec import Scenario

PLAIN = scenario(
    faults={"byzantine": {"kind": "nan"}},
    population__partition={"max_examples": 50},
    device_class=[{"name": "a"}, {"name": "b", "share": 2.0}],
)
TABLE: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(PLAIN))
WORDS = ("description", "sweep")
"""What a scenario says that decides nothing."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all single values of a scenario."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for n, inner in enumerate(value) for leaf in leaves(inner, (*path, n))]
    return [path]


def another(value: Any) -> Any:
    """Return a value of the same type that is another; for what was not given, one that is."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 + 0.01
        case str():
            return f"{value}-x"
        case dict():
            return {"x": 1.0}
        case list():
            return ["x"]
        case _:
            return 3


def at(path: tuple[Any, ...], change: Any) -> dict[str, Any]:
    made = copy.deepcopy(TABLE)
    holder: Any = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = change(holder[path[-1]])
    return made


def read(table: dict[str, Any]) -> Scenario | None:
    """Return the scenario; None where its types allow no such value (a name from a list, a count that is none)."""
    try:
        return msgspec.convert(table, Scenario)
    except msgspec.ValidationError:
        return None


def test_every_value_that_decides_a_run_is_in_its_hash() -> None:
    before, seen = scenario_sha256(PLAIN), set()
    decisive = [path for path in leaves(TABLE) if path[0] not in WORDS]
    for path in decisive:
        made = read(at(path, another))
        if made is not None:
            assert scenario_sha256(made) != before, path
            seen.add(scenario_sha256(made))
    # Nearly all could be changed, and no two changes look alike.
    assert len(seen) > 0.8 * len(decisive)
    assert len(decisive) > 90


@pytest.mark.parametrize("word", WORDS)
def test_words_and_searches_are_not(word: str) -> None:
    change = {"description": "else", "sweep": {"fields": {"seed": [1, 2]}}}[word]
    made = read(at((word,), lambda _before: change))

    assert made is not None
    assert made != PLAIN
    assert scenario_sha256(made) == scenario_sha256(PLAIN)


def test_the_order_in_which_a_file_says_things_is_not() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(one) for one in value] if isinstance(value, list) else value

    made = read(turned(TABLE))

    assert made is not None
    assert scenario_sha256(made) == scenario_sha256(PLAIN)


def test_defaults_written_out_are_the_defaults() -> None:
    written = scenario(job__rounds=10, seed=0, availability={"kind": "always"})

    assert scenario_sha256(written) == scenario_sha256(scenario())
    assert scenario_sha256(scenario(device_class=[{"name": "b"}, {"name": "a"}])) != scenario_sha256(
        scenario(device_class=[{"name": "a"}, {"name": "b"}])
    )
