"""A profile that contradicts itself is refused, each problem with its key path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.telemetry import channel, profile

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import (
    CsvSpec,
    DeviceProfile,
    SourceSpec,
    StoreSpec,
    WindowSpec,
    check_profile,
    read_profile,
)
from hedgerow.shared.specs import TensorSpec


def problems(broken: DeviceProfile) -> str:
    with pytest.raises(ConfigError) as caught:
        check_profile(broken, "p.toml")
    assert str(caught.value).startswith("p.toml: ")
    return str(caught.value)


def test_a_sound_profile_passes() -> None:
    check_profile(profile("a", "b"), "p.toml")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unit": "Celsius"}, "channel[0].unit: 'Celsius' is not a known unit; did you mean 'degC'?"),
        ({"unit": "v"}, "did you mean 'V'?"),
        ({"unit": "furlong/fortnight-x"}, "allowed are"),
        ({"minimum": 5.0, "maximum": 5.0, "nominal": 5.0}, "channel[0].minimum: 5 is not below maximum 5"),
        ({"nominal": 2e3}, "channel[0].nominal: 2000 lies outside [-1000, 1000]"),
        ({"spread": 1e9}, "channel[0].spread"),
        ({"maximum": float("inf")}, "channel[0].maximum: must be a finite number"),
        ({"nominal": float("nan")}, "channel[0].nominal: must be a finite number"),
    ],
)
def test_a_wrong_channel_is_named(changes: dict[str, Any], expected: str) -> None:
    assert expected in problems(profile("a", channel=(channel("a", **changes),)))


def test_every_problem_is_listed_at_once() -> None:
    text = problems(profile(channel=(channel("a", unit="Volt"), channel("a"), channel("c", nominal=1e6))))

    assert "channel[0].unit" in text
    assert "channel: name 'a' appears 2 times" in text
    assert "channel[2].nominal" in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceSpec("a/#/b"), "source[0].topic: 'a/#/b' may hold # only"),
        (SourceSpec("s", payload="value"), "source[0].channel"),
        (SourceSpec("s", payload="value", channel="a", timestamp="t"), "source[0].timestamp"),
        (
            SourceSpec("s", payload="value", channel="zz"),
            "source[0].channel: 'zz' is not a channel; there are a, b",
        ),
        (SourceSpec("s", payload="array"), "source[0].order"),
        (SourceSpec("s", payload="array", order=("a", "b"), timestamp="5"), "source[0].timestamp: '5'"),
        (SourceSpec("s", payload="array", order=("a", "a")), "source[0]: order 'a' appears 2 times"),
        (SourceSpec("s", fields={"a": "x", "zz": "y"}), "source[0].fields: 'zz' is not a channel"),
        (SourceSpec("s", fields={"a": "x..y", "b": "z"}), "source[0].fields.a: 'x..y' is not a dotted path"),
        (SourceSpec("s", fields={"a": "x"}), "channel 'b': no source feeds it"),
        (SourceSpec("s", order=("a",)), 'source[0].order: only payload = "array"'),
    ],
)
def test_a_wrong_source_is_named(source: SourceSpec, expected: str) -> None:
    assert expected in problems(profile(source=source))


def test_one_channel_fed_twice_is_refused() -> None:
    sources = (SourceSpec("x"), SourceSpec("y", payload="value", channel="a"))
    text = problems(msgspec.structs.replace(profile(), source=sources))

    assert "source: channel 'a' appears 2 times" in text


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        (CsvSpec(columns={"a": "A", "zz": "Z"}), "csv.columns: 'zz' is not a channel"),
        (CsvSpec(columns={"a": "A"}), "csv.columns: no column for channel b"),
        (CsvSpec(columns={"a": "A", "b": "A"}), "csv.columns: column 'A' appears 2 times"),
        (CsvSpec(columns={"a": "A", "b": "label"}, ignore=("label",)), "a label must never reach an agent"),
    ],
)
def test_a_wrong_csv_table_is_named(csv: CsvSpec, expected: str) -> None:
    assert expected in problems(profile(csv=csv))


def test_a_window_too_large_or_without_readings_is_refused() -> None:
    wide = tuple(channel(f"c{n}") for n in range(200))
    large = profile(channel=wide, window=WindowSpec(length=8000), store=StoreSpec(max_bytes=65_536))
    assert "store.max_bytes" in problems(large)
    assert "window.max_hold_rows" in problems(profile(window=WindowSpec(length=3, max_hold_rows=3)))


def test_names_of_tensors_are_unique() -> None:
    image = TensorSpec("window", "uint8", (8, 8, 1), "image")

    assert "tensor: name 'window' appears 2 times" in problems(profile(tensor=(image,)))


def test_a_device_without_telemetry_needs_a_tensor() -> None:
    image = TensorSpec("image", "uint8", (8, 8, 1), "image")
    check_profile(DeviceProfile("cam", 1, tensor=(image,)), "p.toml")

    assert "at least one" in problems(DeviceProfile("nothing", 1))


def test_a_stride_longer_than_the_window_is_allowed() -> None:
    check_profile(profile(window=WindowSpec(length=4, stride=10)), "p.toml")


def test_a_file_is_read_checked_and_named(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(
        'name = "p"\nversion = 1\n[[channel]]\nname = "a"\nunit = "celcius"\nminimum = 0\nmaximum = 1\n'
        "nominal = 0.5\nspread = 0.1\n"
    )
    with pytest.raises(ConfigError, match=r"p\.toml: channel\[0\]\.unit: 'celcius'.*degC"):
        read_profile(path)

    path.write_text(path.read_text().replace("celcius", "degC"))
    assert read_profile(path).channels == ("a",)

    path.write_text(path.read_text() + "colour = 3\n")
    with pytest.raises(ConfigError, match=r"channel\[0\]\.colour"):
        read_profile(path)


def test_a_profile_survives_encoding() -> None:
    before = profile("a", "b", "c")

    assert msgspec.json.decode(msgspec.json.encode(before), type=DeviceProfile) == before
