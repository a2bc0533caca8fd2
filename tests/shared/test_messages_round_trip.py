"""Every message between device and server comes back as it went; every bound on what a peer may say is exact."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.shared import messages
from hedgerow.shared.messages import (
    Alarm,
    AlarmCleared,
    BundleReport,
    BundleTarget,
    ChannelShare,
    DesiredState,
    Event,
    EventAck,
    EventBatch,
    GapRecord,
    Heartbeat,
    HeartbeatAck,
    JobAssignment,
    JoinRequest,
    JoinResponse,
    LatencyHistogram,
    Notice,
    RecipeReport,
    RenewRequest,
    RenewResponse,
    ReportedState,
    TrainerExit,
    decode,
)

INTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=16)


def some(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return any ``kind``, field by field from its own types."""
    return st.builds(kind, **{field.name: of(field.type) for field in msgspec.structs.fields(kind)})


def of(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return some(kind)
    if kind is int:
        return INTS
    if kind is float:
        return FLOATS
    if kind is str:
        return TEXT
    if kind is bool:
        return st.booleans()
    if kind == messages.EventBody:
        return st.one_of(*map(some, (Alarm, AlarmCleared, Notice, GapRecord)))
    origin: Any = getattr(kind, "__origin__", None)
    arguments: tuple[Any, ...] = getattr(kind, "__args__", ())
    if hasattr(kind, "__metadata__"):
        meta = kind.__metadata__[0]
        if meta.pattern is not None:
            return st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z")
        return of(origin)
    if origin is tuple:
        return st.lists(of(arguments[0]), max_size=3).map(tuple)
    if str(origin) == "typing.Literal":
        return st.sampled_from(arguments)
    return st.one_of(*(st.none() if one is type(None) else of(one) for one in arguments))


KINDS: list[Any] = sorted(messages._DECODERS, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_a_message_comes_back_as_it_went_and_with_fields_that_a_newer_peer_adds(
    kind: Any, data: st.DataObject
) -> None:
    message = data.draw(some(kind))
    encoded = msgspec.json.encode(message)
    more = json.dumps({**json.loads(encoded), "of_a_newer_release": {"a": [1, None]}}).encode()

    assert decode(encoded, kind) == message
    assert decode(more, kind) == message
    assert decode(bytearray(encoded), kind) == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_a_message_cut_off_anywhere_is_none(kind: Any, data: st.DataObject) -> None:
    encoded = msgspec.json.encode(data.draw(some(kind)))

    with pytest.raises(msgspec.DecodeError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))], kind)


JOIN = {"token_id": "t", "secret": "s", "device": "pump-1", "csr_pem": "c"}
BEAT = {
    "device": "d", "sent_us": 1, "agent_version": "0", "uptime_s": 1.0, "pss_bytes": 1, "disk_free_bytes": 1,
    "readings_total": 0, "quarantined_total": 0, "inferences_total": 0, "alarms_total": 0, "outbox_pending": 0,
    "clock_ok": True, "broker_connected": True,
}  # fmt: skip
LENGTHS: list[tuple[Any, dict[str, Any], str, int]] = [
    (JoinRequest, JOIN, "token_id", 16),
    (JoinRequest, JOIN, "secret", 64),
    (JoinRequest, JOIN, "csr_pem", 4096),
    (JoinRequest, JOIN, "agent_version", 128),
    (RenewRequest, {"csr_pem": "c"}, "csr_pem", 4096),
    (TrainerExit, {"job_id": "j", "code": 1}, "job_id", 128),
    (TrainerExit, {"job_id": "j", "code": 1}, "reason", 1000),
    (RecipeReport, {"name": "n", "code_hash": "h"}, "name", 128),
    (RecipeReport, {"name": "n", "code_hash": "h"}, "code_hash", 64),
    (BundleTarget, {"model": "m", "version": 1, "manifest_sha256": "h"}, "model", 128),
    (EventBatch, {"epoch": "e", "events": []}, "epoch", 32),
    (Heartbeat, BEAT, "device", 128),
    (Heartbeat, BEAT, "agent_version", 128),
]


@pytest.mark.parametrize(
    ("kind", "plain", "field", "bound"), LENGTHS, ids=lambda v: getattr(v, "__name__", None)
)
def test_a_text_is_as_long_as_it_may_be_and_no_longer(
    kind: Any, plain: dict[str, Any], field: str, bound: int
) -> None:
    assert getattr(decode(json.dumps(plain | {field: "ä" * bound}).encode(), kind), field) == "ä" * bound
    with pytest.raises(msgspec.ValidationError, match=rf"length <= {bound} - at `\$\.{field}`"):
        decode(json.dumps(plain | {field: "x" * (bound + 1)}).encode(), kind)


@pytest.mark.parametrize("name", ["", "A", "a b", "a\n", "../a", "a" * 64, "-a", "ä", "a.b", "a\u0000"])
def test_a_device_joins_under_a_plain_name_only(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"regex.*device"):
        decode(json.dumps(JOIN | {"device": name}).encode(), JoinRequest)


def event(body: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"sequence": 1, "at_us": 1, "severity": "info", "body": body, **more}).encode()


@pytest.mark.parametrize(
    "data",
    [
        event({"type": "notice", "code": "c", "text": "t"}, severity="fatal"),
        event({"type": "reading", "value": 1}),
        event({"code": "c", "text": "t"}),
        event({"type": None, "code": "c", "text": "t"}),
        event({"type": "gap", "first": "1", "last": 2, "reason": "r"}),
        event({"type": "notice", "code": "c", "text": "x" * 1001}),
        event({"type": "notice", "code": "c", "text": "t"}, sequence=1.5),
        event({"type": "notice", "code": "c", "text": "t"}, sequence=True),
        event([]),  # type: ignore[arg-type]
        b'{"sequence":1,"at_us":1,"severity":"info","body":{"type":"alarm-cleared","model":"m","window_end_us":1,"lasted_s":NaN}}',
        b'{"sequence":1,"at_us":1,"severity":"info","body":{"type":"alarm-cleared","model":"m","window_end_us":1,"lasted_s":1e999}}',
    ],
)
def test_what_is_outside_the_closed_set_does_not_get_in(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data, Event)


def test_a_batch_holds_256_events_and_no_more() -> None:
    one = json.loads(event({"type": "notice", "code": "c", "text": "t"}))

    assert len(decode(json.dumps({"epoch": "e", "events": [one] * 256}).encode(), EventBatch).events) == 256
    with pytest.raises(msgspec.ValidationError, match="length <= 256"):
        decode(json.dumps({"epoch": "e", "events": [one] * 257}).encode(), EventBatch)


def test_the_tag_of_each_event_body_is_its_own_and_stays() -> None:
    """Stored events and devices of other releases speak by these words."""
    tags = {kind.__struct_config__.tag for kind in (Alarm, AlarmCleared, Notice, GapRecord)}

    assert tags == {"alarm", "alarm-cleared", "notice", "gap"}


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (EventAck("e", 3), {"epoch": "e", "up_to": 3}),
        (HeartbeatAck(5, 6), {"server_time_us": 5, "desired_revision": 6}),
        (RenewResponse("c", "a"), {"certificate_pem": "c", "ca_pem": "a"}),
        (JobAssignment("j", "r", "h"), {"job_id": "j", "recipe": "r", "recipe_hash": "h"}),
        (ChannelShare("flow", 0.5), {"channel": "flow", "share": 0.5}),
        (LatencyHistogram((10,), (1, 2)), {"bounds_us": [10], "counts": [1, 2]}),
        (
            DesiredState(4, (BundleTarget("m", 1, "h"),)),
            {
                "revision": 4, "jobs": [],
                "bundles": [{"model": "m", "version": 1, "manifest_sha256": "h", "rollback_ok": False}],
            },
        ),
        (
            ReportedState(2, (BundleReport("m", 1, "h", "serving"),), recipes=(RecipeReport("r", "h"),)),
            {
                "revision": 2, "trainer": "idle", "recipes": [{"name": "r", "code_hash": "h"}], "profile": "",
                "profile_version": 0,
                "bundles": [{
                    "model": "m", "version": 1, "manifest_sha256": "h", "state": "serving", "runtime": "",
                    "precision": "", "provider": "", "reason": "",
                }],
            },
        ),
        (
            JoinResponse("d", "c", "a", "t", "s"),
            {"device": "d", "certificate_pem": "c", "ca_pem": "a", "tuf_root": "t", "server_id": "s", "groups": []},
        ),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_on_the_wire_is_this_and_nothing_else(message: Any, kept: dict[str, Any]) -> None:
    assert json.loads(msgspec.json.encode(message)) == kept
