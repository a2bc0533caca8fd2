"""Payloads become rows by the profile's source; whatever a broker sends is at worst refused with a reason."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.edge_agent.telemetry.reading import Row
from hedgerow.shared import limits
from hedgerow.shared.profile import SourceSpec

NOW = 1_767_225_600_000_000
CHANNELS = ("a", "b", "c")
SOURCES = {
    "value": SourceSpec("s", payload="value", channel="b"),
    "object": SourceSpec("s", timestamp="t", timestamp_unit="ms"),
    "fields": SourceSpec("s", fields={"a": "x.y", "c": "z"}, timestamp="head.at"),
    "array": SourceSpec("s", payload="array", order=("c", "a"), timestamp="1", timestamp_unit="s"),
    "undated": SourceSpec("s", payload="array", order=("a", "b", "c")),
}


def decode(name: str, payload: bytes | Any) -> tuple[tuple[Row, ...], list[str]]:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    decoded = Mapping(SOURCES[name], CHANNELS).decode(data, NOW)
    return decoded.rows, [refusal.reason for refusal in decoded.refusals]


@pytest.mark.parametrize(
    ("name", "payload", "rows"),
    [
        ("value", 21.5, [Row(NOW, ((1, 21.5),))]),
        ("value", b" 7 ", [Row(NOW, ((1, 7.0),))]),
        ("object", {"t": 5000, "a": 1, "b": 2.5, "c": -3}, [Row(5_000_000, ((0, 1.0), (1, 2.5), (2, -3.0)))]),
        ("fields", {"x": {"y": 4, "q": 9}, "z": 5, "head": {"at": "1970-01-01T00:00:02Z"}}, [Row(2_000_000, ((0, 4.0), (2, 5.0)))]),
        ("array", [7, 3, 8], [Row(3_000_000, ((2, 7.0), (0, 8.0)))]),
        ("array", [[7, 3, 8], [9, 4, 1]], [Row(3_000_000, ((2, 7.0), (0, 8.0))), Row(4_000_000, ((2, 9.0), (0, 1.0)))]),
        ("undated", [1, 2, 3], [Row(NOW, ((0, 1.0), (1, 2.0), (2, 3.0)))]),
    ],
)  # fmt: skip
def test_each_form_of_payload_is_mapped(name: str, payload: Any, rows: list[Row]) -> None:
    assert decode(name, payload) == (tuple(rows), [])


def test_an_array_of_objects_is_several_rows() -> None:
    rows, reasons = decode("object", [{"t": 1, "a": 1, "b": 1, "c": 1}, {"t": 2, "a": 2, "b": 2, "c": 2}])

    assert [row.time_us for row in rows] == [1000, 2000]
    assert reasons == []


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("value", b"\xff\x00garbage", "malformed"),
        ("value", b"", "malformed"),
        ("value", b"nan", "not-a-number"),
        ("value", b"-Infinity", "not-a-number"),
        ("value", b"1e999", "malformed"),
        ("value", b"1" + b"0" * 400, "not-a-number"),
        ("value", b"true", "not-a-number"),
        ("value", b'"21.5"', "not-a-number"),
        ("value", b"[1]", "not-a-number"),
        ("value", b"null", "missing"),
        ("object", b'{"t": 5000, "a": 1', "malformed"),
        ("object", b"[" * 60_000, "too-deep"),
        ("object", b'{"a":' * 10_000, "too-deep"),
        ("object", b'{"t": 5000, "a": NaN}', "malformed"),
        ("object", b"3", "wrong-shape"),
        ("object", b'{"t": "noon", "a": 1}', "bad-timestamp"),
        ("object", b'{"a": 1}', "bad-timestamp"),
        ("object", b'{"t": -1, "a": 1, "b": 1, "c": 1}', "bad-timestamp"),
        ("array", b"[1, 2]", "wrong-shape"),
        ("array", b"{}", "wrong-shape"),
        ("array", b"[]", "wrong-shape"),
        ("object", b" " * (limits.MAX_MQTT_PAYLOAD_BYTES + 1), "oversized"),
    ],
)
def test_bad_payloads_are_refused_with_a_reason(name: str, payload: bytes, reason: str) -> None:
    rows, reasons = decode(name, payload)

    assert rows == ()
    assert reason in reasons


def test_one_bad_value_costs_that_reading_only() -> None:
    rows, reasons = decode("object", {"t": 1, "a": 1, "b": "off", "c": None})

    assert rows == (Row(1000, ((0, 1.0),)),)
    assert reasons == ["not-a-number", "missing"]


def test_an_unknown_channel_is_refused_where_names_are_the_mapping() -> None:
    rows, reasons = decode("object", {"t": 1, "a": 1, "b": 2, "c": 3, "d": 4})

    assert len(rows) == 1
    assert reasons == ["unknown-channel"]
    assert decode("fields", {"x": {"y": 1}, "z": 2, "other": 3, "head": {"at": "1970-01-01"}})[1] == []


def test_one_bad_row_of_a_batch_costs_that_row_only() -> None:
    rows, reasons = decode("array", [[7, 3, 8], [7, "x", 8], [1], 5, [7, 4, 8]])

    assert [row.time_us for row in rows] == [3_000_000, 4_000_000]
    assert reasons == ["bad-timestamp", "wrong-shape", "wrong-shape"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["a", "b", "c", "t", "x", "y", "z", "head", "at", "?"]), inner, max_size=6
        )
    ),
    max_leaves=20,
)


def check_bounded(name: str, payload: bytes) -> None:
    decoded = Mapping(SOURCES[name], CHANNELS).decode(payload, NOW)
    for row in decoded.rows:
        assert row.time_us >= 0
        assert row.values
        for position, value in row.values:
            assert 0 <= position < len(CHANNELS)
            assert math.isfinite(value)
    if not decoded.rows and payload.strip() not in (b"[]", b""):
        assert decoded.refusals


@pytest.mark.parametrize("name", SOURCES)
@given(payload=st.binary(max_size=300))
def test_no_bytes_raise(name: str, payload: bytes) -> None:
    check_bounded(name, payload)


@pytest.mark.parametrize("name", SOURCES)
@given(value=json_values)
def test_no_json_raises(name: str, value: Any) -> None:
    check_bounded(name, json.dumps(value).encode())


@given(cut=st.integers(1, 60))
def test_truncated_payloads_never_give_wrong_rows(cut: int) -> None:
    whole = json.dumps({"t": 5000, "a": 1.25, "b": 2.5, "c": -3.5}).encode()
    rows, reasons = decode("object", whole[: max(0, len(whole) - cut)])

    assert rows == ()
    assert reasons == ["malformed"]
