"""Payloads made to hurt: bytes that are no text, names that are no names, numbers at the edge of numbers."""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.edge_agent.telemetry.quarantine import Quarantine
from hedgerow.edge_agent.telemetry.reading import COUNTED_ONLY, Decoded, Reason, Row
from hedgerow.shared.profile import SourceSpec

NOW = 1_767_225_600_000_000
CHANNELS = ("a", "b", "c")
OBJECT = SourceSpec("s", timestamp="t", timestamp_unit="us")
UNDATED = SourceSpec("s")
ARRAY = SourceSpec("s", payload="array", order=("c", "a"))
VALUE = SourceSpec("s", payload="value", channel="b")


def decode(source: SourceSpec, payload: bytes) -> Decoded:
    return Mapping(source, CHANNELS).decode(payload, NOW)


def reasons(found: Decoded) -> list[str]:
    return [refusal.reason for refusal in found.refusals]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a\xff": 1}',
        b'{"a": "\xff"}',
        b'{"a\xed\xb0\x80": 1}',
        b'["\xc3\x28"]',
        b'"\xf8\x88\x80\x80\x80"',
        b'{"\\ud800": 1}',
        b"\xef\xbb\xbf1.5",
        b"\x00",
        b'{"a": 1}\x00',
        b'{"a": 1} {"a": 2}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 0x10}',
        b'{"a": +1}',
        b'{"a": .5}',
        b'{"a": 01}',
    ],
)
@pytest.mark.parametrize("source", [OBJECT, UNDATED, ARRAY, VALUE])
def test_what_is_no_json_is_malformed_and_raises_nothing(source: SourceSpec, payload: bytes) -> None:
    found = decode(source, payload)

    assert found.rows == ()
    assert reasons(found) == ["malformed"]
    assert len(found.refusals[0].detail) <= 200


@given(text=st.text(max_size=20), tail=st.binary(min_size=1, max_size=6), place=st.sampled_from("kvs"))
def test_no_bytes_inside_a_text_raise(text: str, tail: bytes, place: str) -> None:
    inner = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")[1:-1] + tail
    payload = {"k": b'{"%s": 1}', "v": b'{"a": "%s"}', "s": b'"%s"'}[place] % inner

    for source in (UNDATED, ARRAY, VALUE):
        found = decode(source, payload)
        assert found.rows or found.refusals


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**1100), 2**1100))
def test_a_finite_number_is_itself_and_any_other_is_refused(number: float) -> None:
    found = decode(VALUE, json.dumps(number).encode())
    try:
        expected = float(number)
    except OverflowError:
        expected = math.inf

    if math.isfinite(expected):
        assert found.rows == (Row(NOW, ((1, expected),)),)
        assert found.refusals == ()
    else:
        assert found.rows == ()
        assert reasons(found) == ["not-a-number"]


@given(st.dictionaries(st.sampled_from([*CHANNELS, "t", "d", "", "a.b"]), st.floats(-1e6, 1e6), max_size=7))
def test_a_row_has_each_channel_that_the_object_has_and_tells_each_stranger(body: dict[str, float]) -> None:
    found = decode(UNDATED, json.dumps(body).encode())

    values = {CHANNELS[position]: value for row in found.rows for position, value in row.values}
    assert values == {name: value for name, value in body.items() if name in CHANNELS}
    assert reasons(found).count("unknown-channel") == len(set(body) - set(CHANNELS))
    assert reasons(found).count("missing") == len(set(CHANNELS) - set(body))


def test_an_object_of_a_thousand_strangers_is_bounded_in_each_detail() -> None:
    body = {"x" * 5000 + str(n): n for n in range(3)} | {"a": 1, "b": 2, "c": 3}

    found = decode(UNDATED, json.dumps(body).encode())

    assert len(found.rows) == 1
    assert [len(refusal.detail) < 100 for refusal in found.refusals] == [True] * 3


def test_a_key_given_twice_counts_as_json_counts_it() -> None:
    assert decode(UNDATED, b'{"a": 1, "a": 2, "b": 0, "c": 0}').rows[0].values[0] == (0, 2.0)


@pytest.mark.parametrize(
    ("fields", "body", "values"),
    [
        ({"a": "x.y.z"}, {"x": {"y": {"z": 4}}}, [(0, 4.0)]),
        ({"a": "x.y.z"}, {"x": {"y": 3}}, []),
        ({"a": "x.y.z"}, {"x": [{"y": 3}]}, []),
        ({"a": "x", "b": "x"}, {"x": 5}, [(0, 5.0), (1, 5.0)]),
        ({"a": "x.0"}, {"x": {"0": 6}}, [(0, 6.0)]),
        ({"a": "x.0"}, {"x": [6]}, []),
    ],
)
def test_dotted_paths_lead_through_objects_alone(
    fields: dict[str, str], body: Any, values: list[tuple[int, float]]
) -> None:
    found = decode(SourceSpec("s", fields=fields), json.dumps(body).encode())

    assert [pair for row in found.rows for pair in row.values] == values
    assert reasons(found) == ["missing"] * (len(fields) - len(values))


@pytest.mark.parametrize("at", ["0", "1", "2"])
def test_the_timestamp_of_an_array_may_stand_anywhere(at: str) -> None:
    source = SourceSpec("s", payload="array", order=("c", "a"), timestamp=at, timestamp_unit="us")
    items: list[float] = [7, 8]
    items.insert(int(at), 55)

    assert decode(source, json.dumps(items).encode()).rows == (Row(55, ((2, 7.0), (0, 8.0))),)


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        ("null", "is not a number of us"),
        ('"5"', "is not a number of us"),
        ("true", "is not a number of us"),
        ("[5]", "is not a number of us"),
        ("-1", "outside the years"),
        ("1e300", "outside the years"),
        ("9" * 400, "outside the years"),
    ],
)
def test_a_bad_time_says_which_and_why_and_costs_the_row(stamp: str, words: str) -> None:
    found = decode(OBJECT, b'{"a": 1, "b": 1, "c": 1, "t": %s}' % stamp.encode())

    assert found.rows == ()
    assert reasons(found) == ["bad-timestamp"]
    assert found.refusals[0].detail.startswith("timestamp 't' ")
    assert words in found.refusals[0].detail


def test_a_time_that_is_not_there_is_said_so() -> None:
    (refusal,) = decode(OBJECT, b'{"a": 1, "b": 1, "c": 1}').refusals

    assert (refusal.reason, refusal.detail) == ("bad-timestamp", "timestamp 't' is not there")


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"true", "b is true or false"),
        (b'"x"', "b is a text"),
        (b"{}", "b is an object"),
        (b"[]", "b is an array"),
        (b"1" + b"0" * 400, "b is a number out of bounds"),
    ],
)
def test_what_stands_where_a_number_should_is_named(payload: bytes, detail: str) -> None:
    (refusal,) = decode(VALUE, payload).refusals

    assert (refusal.reason, refusal.detail) == ("not-a-number", detail)


@pytest.mark.parametrize(
    ("source", "payload", "detail"),
    [
        (UNDATED, b"3", "expected an object, got a number"),
        (UNDATED, b"[null]", "expected an object, got null"),
        (ARRAY, b'{"c": 1}', "expected an array of 2 values, got an object"),
        (ARRAY, b"[1, 2, 3]", "expected an array of 2 values, got 3 values"),
        (ARRAY, b"[[1, 2], 7]", "expected an array of 2 values, got a number"),
    ],
)
def test_a_wrong_shape_is_told_beside_the_right_one(source: SourceSpec, payload: bytes, detail: str) -> None:
    assert [(one.reason, one.detail) for one in decode(source, payload).refusals] == [("wrong-shape", detail)]


def test_every_refusal_of_a_hostile_message_can_be_kept_on_disk() -> None:
    connection, quarantine = sqlite3.connect(":memory:"), Quarantine()
    Quarantine.prepare(connection)
    names = [b"\xff\x00", '{"\U0001f600\u0000é": 1}'.encode(), b'{"a": "\xed\xa0\x80"}', b"[" * 50_000]

    for n, payload in enumerate(names):
        assert quarantine.take("t/\u0000\U0001f600", payload, decode(UNDATED, payload).refusals, n)
    quarantine.write(connection)

    kept = Quarantine.recent(connection)
    assert [entry.payload for entry in reversed(kept)] == [payload[:256] for payload in names]
    assert [entry.size for entry in reversed(kept)] == [len(payload) for payload in names]


def test_the_newest_come_first_and_as_many_as_asked() -> None:
    connection, quarantine = sqlite3.connect(":memory:"), Quarantine()
    Quarantine.prepare(connection)
    for n in range(5):
        quarantine.take("s", b"x", decode(VALUE, b"x").refusals, n)
    quarantine.write(connection)
    quarantine.written()
    quarantine.write(connection)

    assert [entry.at_us for entry in Quarantine.recent(connection, 3)] == [4, 3, 2]
    assert len(Quarantine.recent(connection)) == 5, "what was written is not written again"


def test_the_first_fault_names_a_payload_that_has_several() -> None:
    quarantine = Quarantine()
    connection = sqlite3.connect(":memory:")
    Quarantine.prepare(connection)
    payload = b'{"a": null, "b": "x", "z": 1}'

    assert quarantine.take("s", payload, decode(UNDATED, payload).refusals, 0)
    quarantine.write(connection)

    assert Quarantine.recent(connection)[0].reason == "unknown-channel"
    assert quarantine.counts == {"unknown-channel": 1, "missing": 2, "not-a-number": 1}


def test_counted_reasons_are_reasons() -> None:
    assert set(Reason.__args__) >= COUNTED_ONLY  # type: ignore[attr-defined]
