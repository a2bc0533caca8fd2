"""Every number of a scenario beside the range that it may have, written here by hand; every table with a key too many."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple, get_args, get_origin

import msgspec
import pytest
from tests.support.simulation_scenarios import table

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.scenario.load import parse_scenario
from hedgerow.simulations.scenario.spec import Scenario

ROUNDS = 10_000
MOST = 10_000_000
WIDEST, FINEST = 1e12, 1e-9


class Range(NamedTuple):
    """Both ends are taken unless they are said to be ``open`` below."""

    low: float
    high: float
    whole: bool = False
    open: bool = False


SHARE = Range(0.0, 1.0)
PHYSICAL = Range(FINEST, WIDEST)
NOT_NEGATIVE = Range(0.0, WIDEST)
RANGES: dict[str, Range] = {
    "seed": Range(0, 2**63 - 1, whole=True),
    "population.devices": Range(1, 1_000_000, whole=True),
    "population.test_share": Range(0.0, 0.9),
    "population.partition.alpha": PHYSICAL,
    "population.partition.labels_per_device": Range(1, MOST, whole=True),
    "population.partition.min_examples": Range(0, 1_000_000, whole=True),
    "population.partition.max_examples": Range(1, MOST, whole=True),
    "population.drift.feature_scale": NOT_NEGATIVE,
    "population.drift.feature_shift": NOT_NEGATIVE,
    "population.drift.from_round": Range(1, ROUNDS, whole=True),
    "population.drift.over_rounds": Range(1, ROUNDS, whole=True),
    "population.drift.devices": SHARE,
    "population.drift.shift": NOT_NEGATIVE,
    "device_class.0.share": PHYSICAL,
    "device_class.0.examples_per_s": PHYSICAL,
    "device_class.0.up_mbit_s": PHYSICAL,
    "device_class.0.down_mbit_s": PHYSICAL,
    "device_class.0.latency_s": NOT_NEGATIVE,
    "device_class.0.memory_mib": PHYSICAL,
    "device_class.0.train_watts": NOT_NEGATIVE,
    "device_class.0.radio_watts": NOT_NEGATIVE,
    "device_class.0.jitter": NOT_NEGATIVE,
    "availability.rate": SHARE,
    "availability.low": SHARE,
    "availability.period_s": PHYSICAL,
    "faults.dropout": SHARE,
    "faults.straggler_share": SHARE,
    "faults.straggler_factor": Range(1.0, 10_000.0),
    "faults.byzantine.share": SHARE,
    "faults.byzantine.scale": Range(0.0, 1e30, open=True),
    "faults.byzantine.from_round": Range(1, ROUNDS, whole=True),
    "faults.leave": SHARE,
    "faults.kill": SHARE,
    "faults.server_kill": SHARE,
    "faults.loss": Range(0.0, 0.9),
    "faults.delay_ms": Range(0.0, 60_000.0),
    "faults.clock_skew_s": Range(-1e9, 1e9),
    "evaluation.every": Range(1, ROUNDS, whole=True),
    "sweep.trials": Range(2, 10_000, whole=True),
    "sweep.first_rounds": Range(1, ROUNDS, whole=True),
    "sweep.keep_one_of": Range(2, 10, whole=True),
}
TABLES = [
    "", "job", "job.privacy", "job.cohort", "job.population", "job.training", "job.strategy", "job.deadlines", "job.gate",
    "population", "population.partition", "population.drift", "device_class.0", "availability", "faults",
    "faults.byzantine", "evaluation", "sweep",
]  # fmt: skip


def whole() -> dict[str, Any]:
    """Return a scenario with each of its tables there."""
    made = table(
        population__partition={},
        population__drift={},
        availability={},
        faults={"byzantine": {"kind": "nan"}},
        evaluation={},
        sweep={"fields": {"seed": [1]}},
        device_class=[{"name": "board"}],
    )
    for name in ("cohort", "population", "training", "strategy", "deadlines", "gate"):
        made["job"][name] = {}
    return made


def read(path: str, value: Any) -> Any:
    """Return the scenario with one value set, as a file would be read; then that value in it."""
    made = copy.deepcopy(whole())
    *folders, last = path.split(".")
    at: Any = made
    for folder in folders:
        at = at[int(folder)] if isinstance(at, list) else at[folder]
    at[last] = value
    found: Any = from_table(made, Scenario, "s.toml")
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, tuple) else getattr(found, key)
    return found


def refused(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^s\.toml: ") as caught:
        read(path, value)

    told = path.replace(".0.", "[0].")
    assert told in str(caught.value), (value, caught.value)


def numbers(kind: Any, path: str) -> list[str]:
    """Return the paths of all numbers in a struct, the job apart, which fleets bound."""
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        name = f"{path}{field.encode_name}"
        if name == "job":
            continue
        kinds = [field.type]
        while kinds:
            one = kinds.pop()
            if one in (int, float):
                found.append(name)
            elif isinstance(one, type) and issubclass(one, msgspec.Struct):
                found += numbers(one, f"{name}.")
            elif get_origin(one) is tuple:
                found += numbers(get_args(one)[0], f"{name}.0.")
            elif get_origin(one) is not dict and get_args(one):
                kinds += [inner for inner in get_args(one) if isinstance(inner, type) or get_args(inner)]
    return found


def test_no_number_is_forgotten_here() -> None:
    assert sorted(numbers(Scenario, "")) == sorted(RANGES)


@pytest.mark.parametrize("path", RANGES)
def test_both_ends_of_a_range_are_taken_and_nothing_beyond(path: str) -> None:
    low, high, is_whole, is_open = RANGES[path]
    if is_whole:
        assert read(path, low) == low
        assert read(path, high) == high
        refused(path, int(low) - 1)
        refused(path, int(high) + 1)
        refused(path, 2**200)
        refused(path, -(2**200))
        return
    assert read(path, high) == high
    refused(path, math.nextafter(high, math.inf))
    refused(path, math.nextafter(low, -math.inf))
    if is_open:
        refused(path, low)
        assert read(path, 5e-324) == 5e-324
    else:
        assert read(path, low) == low


@pytest.mark.parametrize("path", RANGES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", [], [1], {}, b"1"])
def test_what_is_no_number_is_refused_by_its_path(path: str, value: Any) -> None:
    refused(path, value)


@pytest.mark.parametrize("path", [path for path, range in RANGES.items() if range.whole])
@pytest.mark.parametrize("value", [1.0, 1.5, 1e300])
def test_where_things_are_counted_fractions_are_refused(path: str, value: float) -> None:
    refused(path, value)


@pytest.mark.parametrize("path", [path for path, range in RANGES.items() if not range.whole])
def test_where_things_are_measured_whole_numbers_are_numbers(path: str) -> None:
    found = read(path, 1 if RANGES[path].high >= 1 else 0)

    assert found in (0, 1)
    assert isinstance(found, float)


@pytest.mark.parametrize("place", TABLES)
def test_a_key_too_many_is_named_in_every_table(place: str) -> None:
    made = whole()
    at: Any = made
    for key in place.split(".") if place else ():
        at = at[int(key)] if isinstance(at, list) else at[key]
    at["no_such_key"] = 1

    with pytest.raises(ConfigError) as caught:
        from_table(made, Scenario, "s.toml")
    path = place.replace(".0", "[0]")
    assert f"unknown key {path}{'.' if path else ''}no_such_key;" in str(caught.value)
    assert (f"keys of {path} are" if path else "top-level keys are") in str(caught.value)


def test_a_misspelt_key_is_told_what_was_meant_where_it_stands() -> None:
    text = b"""
name = "small"
[job]
name = "small"
recipe = "digits-cnn"
privacy = {mode = "none"}
[job.training]
learning_rat = 0.1
[population]
devises = 3
[[device_class]]
name = "a"
[[device_class]]
name = "b"
jiter = 1
"""
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text, "s.toml")

    assert "unknown keys device_class[1].jiter, job.training.learning_rat, population.devises" in str(
        caught.value
    )
    assert "did you mean device_class[1].jitter, job.training.learning_rate, population.devices?" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"name = 'a'\x00", "not TOML"),
        ("name = 'ä'".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbfname = 'a'", "not TOML"),
        (b"name = 'a'\nname = 'b'", "not TOML"),
        (b"name = ", "not TOML"),
        (b"seed = " + b"9" * 5000, "not TOML"),
        (b"x = " + b"[" * 5000, "nested too deeply"),
        (b"x." * 3000 + b"x = 1", "nested too deeply"),
        (b"#" * 20_000_000, "larger than"),
        (b"", "missing required field"),
        (b"[job]\n[population]\ndevices = 1", "missing required field"),
        (b"name = 1979-05-27", "Expected `str`"),
    ],
)
def test_bytes_that_are_no_scenario_are_refused_by_what_they_are(data: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=r"^s\.toml: ") as caught:
        parse_scenario(data, "s.toml")

    assert why in str(caught.value)
    # A message is for reading: it does not hand the file back.
    assert len(str(caught.value)) < 2000


def test_ranges_are_so_narrow_that_no_figure_of_a_run_can_overflow() -> None:
    """The longest trip and the most joules, all at their worst ends, are finite by far."""
    examples = 2_000_000 * 1000  # epochs
    seconds = (examples / (FINEST * 0.1) + 8 * 4e9 / (FINEST * 1e6) + WIDEST) * 10_000
    joules = seconds * WIDEST * 1_000_000 * ROUNDS

    assert math.isfinite(joules)
    assert joules < 1e60
