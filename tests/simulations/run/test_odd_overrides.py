"""Whatever somebody types behind ``--set``: it changes that field alone or is refused in words, never by a traceback."""

from __future__ import annotations

import copy
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.simulation_scenarios import scenario, table

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.names import find_scenario, parse_override, with_overrides
from hedgerow.simulations.scenario.check_sweep import with_value
from hedgerow.simulations.scenario.spec import Scenario

PLAIN = scenario()
PATHS = ["seed", "job.rounds", "job.training.learning_rate", "population.devices", "device_class.0.jitter"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed", "expected PATH=VALUE"),
        ("=1", "expected PATH=VALUE"),
        ("  =1", "expected PATH=VALUE"),
        (".=1", "unknown key"),
        ("job.=1", "unknown key"),
        ("job..rounds=1", "unknown key"),
        ("rounds=1", "unknown key rounds"),
        ("job.trainings.batch_size=1", "unknown key job.trainings"),
        ("seed.more=1", "seed holds no keys"),
        ("device_class.0.name.more='a'", "device_class.0.name holds no keys"),
        ("device_class.1.jitter=1", "device_class.1 holds no keys"),
        ("device_class.-1.jitter=1", "device_class.-1 holds no keys"),
        ("device_class.00.jitter=1", "device_class.00 holds no keys"),
        ("device_class.²=1", "expected a number below 1"),
        ("device_class.²=1", "device_class.²"),
        ("device_class.٠.jitter=1", "holds no keys"),
        (f"device_class.{'9' * 5000}=1", "expected a number below 1"),
        (f"seed={'9' * 5000}", "Expected `int`, got `str`"),
        ("seed=" + "[" * 20_000, "Expected `int`, got `str`"),
        ("seed=1.0", "Expected `int`, got `float`"),
        ("seed=true", "Expected `int`, got `bool`"),
        ("seed=", "Expected `int`, got `str`"),
        ("job.training.learning_rate=nan", "Expected `float`, got `str`"),
        ("job.training.learning_rate=-inf", "Expected `float`, got `str`"),
        ("job.training.learning_rate=1e400", "Expected `float`, got `str`"),
        ("job.training.learning_rate='0.1'", "Expected `float`, got `str`"),
        ("job=1", "Expected `object`, got `int`"),
        ("device_class=[]", "expected at least one"),
        ("device_class={}", "Expected `array`, got `object`"),
        ("population.options.path=2020-01-01", "population.options: unknown key path"),
        ("sweep.fields.job=[1]", r"sweep\.fields\.job"),
        ("job.name=../../etc", "matching regex"),
        ("name=a\x00b", "matching regex"),
        ("engine=fast", "Invalid enum value 'fast'"),
    ],
)
def test_what_cannot_be_set_is_refused_with_its_path(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        find_scenario(PLAIN, [text])

    assert text.partition("=")[0].strip().rpartition(".")[2][:20] in str(caught.value)


@pytest.mark.parametrize("key", ["²", "٠", "9" * 5000, "-1", "00", "", "0 "])
def test_a_sweeps_field_names_a_place_by_its_plain_number(key: str) -> None:
    with pytest.raises(ConfigError, match="expected a number below 1"):
        with_value(PLAIN, f"device_class.{key}.jitter", 0.2, "s.toml")


def same_but(path: str, value: Any) -> Scenario:
    """Return the plain scenario with one field set in its table, by hand."""
    made = copy.deepcopy(msgspec.json.decode(msgspec.json.encode(PLAIN)))
    at: Any = made
    *folders, last = path.split(".")
    for folder in folders:
        at = at[int(folder)] if isinstance(at, list) else at[folder]
    at[last] = value
    return msgspec.convert(made, Scenario)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("seed", 9, "9"),
        ("seed", 16, " 0x10 "),
        ("seed", 1000, "1_000"),
        ("job.training.learning_rate", 1, "1"),
        ("job.training.learning_rate", 1e-3, "1e-3"),
        ("device_class.0.jitter", 0.5, "0.5"),
        ("description", "a = b", "a = b"),
        ("description", "x\ny", '"x\\ny"'),
        ("description", "2020-01-01T", "2020-01-01T"),
        ("engine", "flower", "flower"),
        ("evaluation.central", False, "false"),
        ("job.cohort", {"rule": "fixed", "size": 3}, "{rule = 'fixed', size = 3}"),
        ("device_class", [{"name": "a"}, {"name": "b", "share": 2.0}], "[{name='a'},{name='b',share=2.0}]"),
    ],
)
def test_what_can_be_set_is_set_and_nothing_else(path: str, value: Any, text: str) -> None:
    assert find_scenario(PLAIN, [f"{path}={text}"]).scenario == same_but(path, value)
    assert find_scenario(PLAIN, [(path, value)]).scenario == same_but(path, value)


def test_of_two_the_later_counts_and_order_is_kept() -> None:
    found = find_scenario(
        PLAIN, ["seed=1", "seed=2", "device_class=[{name='x'}]", "device_class.0.jitter=0.3"]
    )

    assert found.scenario.seed == 2
    assert [(one.name, one.jitter) for one in found.scenario.device_class] == [("x", 0.3)]


KEYS = st.one_of(
    st.text(string.printable + "²٠é\0", max_size=6),
    st.sampled_from(
        ["job", "seed", "device_class", "0", "training", "population", "options", "sweep", "fields"]
    ),
)


@given(st.lists(KEYS, min_size=1, max_size=4).map(".".join), st.text(max_size=12))
def test_whatever_is_typed_nothing_but_our_own_error_comes(path: str, value: str) -> None:
    try:
        found = find_scenario(PLAIN, [f"{path}={value}"])
    except ConfigError:
        return
    assert isinstance(found.scenario, Scenario)


@given(st.sampled_from(PATHS), st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()))
def test_values_from_python_are_taken_or_refused_by_path(path: str, value: Any) -> None:
    try:
        found = find_scenario(PLAIN, [(path, value)]).scenario
    except ConfigError as error:
        assert path.rpartition(".")[2] in str(error) or "devices" in str(error)
    else:
        assert found == same_but(path, value)


def test_a_value_as_toml_comes_back_as_that_value() -> None:
    assert parse_override("a.b = 'c = d'") == ("a.b", "c = d")
    assert parse_override("a==b") == ("a", "=b")
    assert parse_override("a=[1, 2]") == ("a", [1, 2])
    assert parse_override("a=nan") == ("a", "nan")


def test_a_table_that_was_not_there_is_made() -> None:
    found = with_overrides(PLAIN, [("faults.byzantine.kind", "nan"), ("faults.byzantine.share", 0.5)], "s")

    assert found.faults.byzantine is not None
    assert (found.faults.byzantine.kind, found.faults.byzantine.share) == ("nan", 0.5)
    assert table()["population"]["devices"] == found.population.devices
