"""Every rule of a profile: what it refuses, under which key, and that nothing sound is refused."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.telemetry import channel, profile

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import (
    Channel,
    ClockSpec,
    CsvSpec,
    DeviceProfile,
    SourceSpec,
    StoreSpec,
    WindowSpec,
    check_profile,
    for_device,
)
from hedgerow.shared.profile_check import source_channels
from hedgerow.shared.specs import TensorSpec
from hedgerow.shared.tomlfile import from_table
from hedgerow.shared.topics import filter_problem
from hedgerow.shared.units import UNITS


def problems(broken: DeviceProfile) -> list[str]:
    try:
        check_profile(broken, "p.toml")
    except ConfigError as error:
        return str(error).removeprefix("p.toml: ").split("; ")
    return []


@st.composite
def sound_channels(draw: st.DrawFn) -> tuple[Channel, ...]:
    names = draw(st.lists(st.from_regex(r"\A[a-z][a-z0-9-]{0,8}\Z"), min_size=1, max_size=4, unique=True))
    made = []
    for name in names:
        low = draw(st.floats(-1e6, 1e6))
        width = draw(st.floats(1e-3, 1e6))
        nominal = min(low + draw(st.floats(0, 1)) * width, low + width)
        spread = draw(st.floats(1e-3, 1)) * width / 2
        made.append(Channel(name, draw(st.sampled_from(sorted(UNITS))), low, low + width, nominal, spread))
    return tuple(made)


@given(sound_channels())
def test_nothing_sound_is_refused(channels: tuple[Channel, ...]) -> None:
    made = DeviceProfile("p", 1, channel=channels)

    assert problems(made) == []
    assert made.window_spec.shape == (made.window.length, len(channels))
    assert made.channels == tuple(one.name for one in channels)


NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_channel_passes_exactly_if_its_numbers_are_in_order(
    minimum: float, maximum: float, nominal: float, spread: float
) -> None:
    one = Channel("a", "V", minimum, maximum, nominal, spread)
    finite = all(map(math.isfinite, (minimum, maximum, nominal, spread)))
    sound = finite and minimum < maximum and minimum <= nominal <= maximum and spread <= maximum - minimum

    assert (problems(profile("a", channel=(one,))) == []) is sound


@pytest.mark.parametrize("key", ["minimum", "maximum", "nominal", "spread"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_each_number_that_is_none_is_named(key: str, value: float) -> None:
    assert f"channel[0].{key}: must be a finite number" in problems(
        profile("a", channel=(channel("a", **{key: value}),))
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceSpec("t", fields={"a": "x"}, order=("a",)), 'source[0].order: only payload = "array" has it'),
        (SourceSpec("t", channel="a"), 'source[0].channel: only payload = "value" has one'),
        (SourceSpec("t", payload="array", order=("a",), channel="a"), 'only payload = "value" has one'),
        (
            SourceSpec("t", payload="value", channel="a", fields={"a": "x"}),
            'source[0].fields: only payload = "object" has them',
        ),
        (SourceSpec("t", payload="value", channel="a", order=("a",)), 'only payload = "array" has it'),
        (SourceSpec("t", timestamp=""), "source[0].timestamp: '' is not a dotted path"),
        (SourceSpec("t", timestamp="a."), "source[0].timestamp: 'a.' is not a dotted path"),
        (SourceSpec("t", timestamp=".a"), "source[0].timestamp: '.a' is not a dotted path"),
        (SourceSpec("t", fields={"a": ""}), "source[0].fields.a: '' is not a dotted path"),
        (SourceSpec(""), "source[0].topic: '' is empty"),
        (SourceSpec("a\x00"), "holds a control character"),
        (SourceSpec("a\n"), "holds a control character"),
        (SourceSpec("ä" * 129), "is longer than 256 bytes"),
        (SourceSpec("a+/b"), "may hold + only as a whole level"),
        (SourceSpec("a/b#"), "may hold # only as its whole last level"),
    ],
)
def test_a_source_that_contradicts_itself_is_named(source: SourceSpec, expected: str) -> None:
    assert any(expected in one for one in problems(profile("a", source=source)))


POSITIONS = [("0", True), ("1", True), ("2", True), ("3", False), ("-1", False), ("", False), ("1.0", False)]
POSITIONS += [("9" * 5000, False), ("٢", False), ("²", False), ("00", False), (" 1", False), ("1e0", False)]


@pytest.mark.parametrize(("stamp", "sound"), POSITIONS)
def test_the_place_of_a_timestamp_in_an_array_is_a_plain_number_within_it(stamp: str, sound: bool) -> None:
    source = SourceSpec("t", payload="array", order=("a", "b"), timestamp=stamp)
    found = problems(profile("a", "b", source=source))

    assert (found == []) is sound
    assert sound or found[0].startswith("source[0].timestamp: ")
    assert sound or found[0].endswith("is not a position in 0 … 2")


def test_two_sources_of_one_topic_are_refused_for_the_second_would_never_see_a_message() -> None:
    sources = (SourceSpec("t", fields={"a": "x"}), SourceSpec("t", fields={"b": "x"}))
    found = problems(msgspec.structs.replace(profile("a", "b"), source=sources))

    assert found == ["source: topic 't' appears 2 times"]


@pytest.mark.parametrize(
    ("source", "fed"),
    [
        (SourceSpec("t"), ("a", "b")),
        (SourceSpec("t", fields={"b": "x"}), ("b",)),
        (SourceSpec("t", payload="value", channel="a"), ("a",)),
        (SourceSpec("t", payload="value"), ()),
        (SourceSpec("t", payload="array", order=("b", "a")), ("b", "a")),
    ],
)
def test_which_channels_a_source_feeds(source: SourceSpec, fed: tuple[str, ...]) -> None:
    assert source_channels(source, ("a", "b")) == fed


def test_a_label_column_must_be_neither_read_nor_taken_for_the_time() -> None:
    text = problems(profile("a", csv=CsvSpec(timestamp="when", columns={"a": "A"}, ignore=("when", "A"))))

    assert text == [
        "csv.ignore: column 'A' is also read",
        "a label must never reach an agent",
        "csv.ignore: column 'when' is also read",
        "a label must never reach an agent",
    ]


def test_a_csv_table_that_is_sound_passes_with_and_without_columns() -> None:
    assert problems(profile("a", "b", csv=CsvSpec(ignore=("label",)))) == []
    assert problems(profile("a", "b", csv=CsvSpec(columns={"a": "A", "b": "B"}))) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtimes": ()}, "runtimes: name at least one"),
        ({"runtimes": ("litert", "litert")}, "runtimes: entry 'litert' appears 2 times"),
        (
            {"tensor": (TensorSpec("i", "uint8", (2,), "image"),) * 2},
            "tensor: name 'i' appears 2 times",
        ),
    ],
)
def test_lists_of_a_profile(changes: dict[str, Any], expected: str) -> None:
    assert expected in problems(profile("a", **changes))


def test_a_store_holds_eight_windows_at_least_and_exactly_eight_is_enough() -> None:
    window = WindowSpec(length=2048)
    one = 2048 * 1 * 4
    assert problems(profile("a", window=window, store=StoreSpec(max_bytes=max(8 * one, 65_536)))) == []

    wide = tuple(channel(f"c{n}") for n in range(2))
    found = problems(profile(channel=wide, window=window, store=StoreSpec(max_bytes=8 * 2 * one - 1)))
    assert found[0].startswith(
        f"store.max_bytes: {8 * 2 * one - 1} holds fewer than eight windows of {2 * one}"
    )


@pytest.mark.parametrize(
    ("length", "hold", "sound"),
    [(1, 3, True), (2, 1, True), (2, 2, False), (10, 9, True), (10, 10, False)],
)
def test_a_window_cannot_be_held_values_alone(length: int, hold: int, sound: bool) -> None:
    found = problems(profile("a", window=WindowSpec(length=length, max_hold_rows=hold)))

    assert (found == []) is sound


def test_a_window_of_more_elements_than_any_tensor_is_refused_as_a_window() -> None:
    wide = tuple(channel(f"c{n}") for n in range(2100))
    found = problems(DeviceProfile("p", 1, channel=wide, window=WindowSpec(length=8192)))

    assert found == [f"window: tensor 'window': {2100 * 8192} elements, at most {limits.MAX_TENSOR_ELEMENTS}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("window", {"rate_hz": 0.0}),
        ("window", {"rate_hz": 1e-320}),
        ("window", {"rate_hz": math.nan}),
        ("window", {"rate_hz": math.inf}),
        ("window", {"length": 0}),
        ("window", {"length": limits.MAX_WINDOW_ROWS + 1}),
        ("window", {"stride": 0}),
        ("window", {"max_hold_rows": -1}),
        ("window", {"min_valid": 1.1}),
        ("window", {"late_rows": 101}),
        ("window", {"name": "a/b"}),
        ("clock", {"max_skew_s": 0.0}),
        ("clock", {"max_skew_s": math.nan}),
        ("clock", {"trusted_after_s": -1.0}),
        ("clock", {"undated": "guess"}),
        ("store", {"max_bytes": 65_535}),
        ("store", {"max_age_s": 0.0}),
        ("csv", {"separator": ""}),
        ("csv", {"separator": ";;"}),
        ("version", 0),
        ("version", True),
        ("baseline_threshold", 0.0),
        ("precision", "int4"),
        ("runtimes", ["tensorrt"]),
        ("name", "Pump 1"),
        ("name", "pump\n"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table({"name": "p", "version": 1, key: value}, DeviceProfile, "p.toml")

    inner = f".{next(iter(value))}" if isinstance(value, dict) else ""
    assert f"`$.{key}{inner}" in str(caught.value)


@given(st.floats(1e-6, 100_000))
def test_any_rate_that_is_read_has_a_period_within_half_a_nanosecond(rate_hz: float) -> None:
    period = from_table(
        {"name": "p", "version": 1, "window": {"rate_hz": rate_hz}}, DeviceProfile, "p.toml"
    ).window.period_ns

    assert period >= 1
    assert abs(period - 1e9 / rate_hz) <= max(0.5, 1e-15 * period)


def test_one_channel_more_than_are_allowed_is_refused_before_any_is_looked_at() -> None:
    row = {"name": "a", "unit": "V", "minimum": 0.0, "maximum": 1.0, "nominal": 0.5, "spread": 0.1}

    with pytest.raises(ConfigError, match=f"length <= {limits.MAX_CHANNELS} - at `\\$.channel`"):
        from_table(
            {"name": "p", "version": 1, "channel": [row] * (limits.MAX_CHANNELS + 1)}, DeviceProfile, "p"
        )


def test_a_device_s_name_takes_the_place_of_its_mark_in_every_topic() -> None:
    sources = (SourceSpec("{device}/a/{device}"), SourceSpec("all/b"))
    made = msgspec.structs.replace(profile("a"), source=sources)

    placed = for_device(made, "pump-7")

    assert [one.topic for one in placed.source] == ["pump-7/a/pump-7", "all/b"]
    assert all(filter_problem(one.topic) is None for one in placed.source)
    assert made.source == sources, "the profile itself stays"


def test_skew_is_unbounded_unless_asked_for_and_undated_readings_are_kept() -> None:
    assert (ClockSpec().max_skew_s, ClockSpec().undated) == (None, "keep")
