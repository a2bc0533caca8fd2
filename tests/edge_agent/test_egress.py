"""What leaves a device is recorded on a real link and compared with the egress statement."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

from tests.support.fleet import heartbeat_of, last_known_time, running_fleet

from hedgerow.edge_agent.config import read_config
from hedgerow.edge_agent.egress import egress_markdown, egress_statement
from hedgerow.edge_agent.link.link import Link
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.shared.messages import (
    Alarm,
    AlarmCleared,
    BundleReport,
    ChannelShare,
    LatencyHistogram,
    Notice,
    ReportedState,
    TrainerExit,
)


def stated() -> dict[str, set[str]]:
    return {
        message.message: {re.sub(r"<[^>]*>", "", field.field) for field in message.fields}
        for message in egress_statement()
    }


def paths(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {p for key, inner in value.items() for p in paths(inner, f"{path}.{key}" if path else key)}
    if isinstance(value, list):
        return {p for inner in value for p in paths(inner, f"{path}[]")}
    return set() if value is None else {path}


def test_statement_names_every_message_and_every_kind_of_event() -> None:
    assert set(stated()) == {
        "JoinRequest",
        "RenewRequest",
        "Heartbeat",
        "EventBatch",
        "TrainerExit",
        "TrainReply",
    }
    fields = {field.field for message in egress_statement() for field in message.fields}
    assert {
        "events[].body<alarm>.attribution[].share",
        "events[].body<gap>.first",
        "latency.counts[]",
    } <= fields
    assert "`secret`" in egress_markdown()


def test_each_event_kind_is_told_apart() -> None:
    assert {f"`{kind}`" for kind in ("alarm", "alarm-cleared", "notice", "gap")} == {
        field.type
        for message in egress_statement()
        for field in message.fields
        if field.field.endswith(".type")
    }


def test_nothing_leaves_that_is_not_in_the_statement(tmp_path: Path) -> None:
    sent: dict[str, set[str]] = {}
    enough = threading.Event()
    kinds = {"heartbeat": "Heartbeat", "events": "EventBatch", "trainer-exit": "TrainerExit"}

    with running_fleet(tmp_path, 1) as (server, homes):
        front, serve = server.gateway.front, server.gateway.front._serve

        async def record(scope: Any, receive: Any, send: Any) -> None:
            name = scope["path"].rsplit("/", 1)[1]
            body = bytearray()

            async def listen() -> Any:
                event = await receive()
                body.extend(event.get("body", b""))
                return event

            await serve(scope, listen, send)
            if body:
                sent.setdefault(kinds[name], set()).update(paths(json.loads(body)))
            if len(sent) == 3:
                enough.set()

        front._serve = record  # type: ignore[method-assign]
        outbox = Outbox(homes[0].outbox)
        outbox.put(
            "critical", Alarm(9, 3, 1, 2, (ChannelShare("flow", 1.0),), "m", "", "litert", "int8", "champion")
        )
        outbox.put("info", AlarmCleared("m", 3, 1.5))
        outbox.put("info", Notice("code", "text"))
        outbox.put_aside(3, "refused")
        state = ReportedState(1, (BundleReport("m", 1, "", "serving"),))
        full = heartbeat_of("device-0", latency=LatencyHistogram((1,), (1, 2)), state=state)
        link = Link(
            homes[0],
            read_config(homes[0].config),
            outbox,
            last_known_time(homes[0]),
            heartbeat=lambda: full,
            on_desired=lambda _: None,
        )
        link.trainer_exited(TrainerExit("job", 1, "why"))
        link.start()
        assert enough.wait(20)
        link.stop(5)

    for message, fields in sent.items():
        assert fields <= stated()[message], message
    assert "events[].body.attribution[].share" in sent["EventBatch"]
