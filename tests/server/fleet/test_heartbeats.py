from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.support.fleet import heartbeat_of

from hedgerow.server.fleet.tables import HeartbeatRow
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import BundleReport, LatencyHistogram, RecipeReport, ReportedState


def rows(server: Any) -> int:
    with server.database.transaction() as session:
        return int(session.scalar(select(func.count()).select_from(HeartbeatRow)))


def test_latest_heartbeat_is_known_at_once_and_written_only_when_flushed(server: Any) -> None:
    beats = server.fleet.heartbeats
    for n in range(5):
        beats.record("a", heartbeat_of("a", alarms_total=n))
    beats.record("b", heartbeat_of("b"))

    assert beats.get("a").heartbeat.alarms_total == 4
    assert rows(server) == 0
    assert beats.flush() == 2
    assert rows(server) == 2
    assert beats.flush() == 0


def test_restart_knows_what_was_flushed_and_that_it_is_old(server: Any) -> None:
    server.fleet.heartbeats.record("a", heartbeat_of("a", alarms_total=7))
    assert server.fleet.heartbeats.age_s("a") < 60
    server.fleet.heartbeats.flush()
    restarted = server.again()

    assert restarted.fleet.heartbeats.get("a").heartbeat.alarms_total == 7
    assert restarted.fleet.heartbeats.age_s("a") == float("inf")
    assert restarted.fleet.heartbeats.age_s("nobody") == float("inf")
    restarted.database.close()


def test_revoked_device_is_forgotten(server: Any) -> None:
    server.join("a")
    server.fleet.heartbeats.record("a", heartbeat_of("a"))
    server.fleet.heartbeats.flush()
    server.fleet.devices.revoke("a", "")

    assert server.fleet.heartbeats.all() == {}
    assert rows(server) == 0


def test_news_of_each_heartbeat_and_of_each_changed_state(server: Any) -> None:
    states = [ReportedState(1), ReportedState(1), ReportedState(2), None]

    async def scenario() -> list[str]:
        server.bus.attach(asyncio.get_running_loop())
        with server.bus.subscribe() as queue:
            for state in states:
                server.fleet.heartbeats.record("a", heartbeat_of("a", state=state))
            await asyncio.sleep(0)
            return [queue.get_nowait().topic for _ in range(queue.qsize())]

    topics = asyncio.run(scenario())
    assert topics.count("device.heartbeat") == 4
    assert topics.count("device.reported") == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"alarms_total": -1},
        {"bytes_up": 2**63},
        {"latency": LatencyHistogram((1, 2), (1, 2))},
        {"latency": LatencyHistogram(tuple(range(65)), (0,) * 66)},
        {"state": ReportedState(1, (BundleReport("m", 1, "", "serving"),) * 65)},
        {"state": ReportedState(1, recipes=(RecipeReport("r", "h"),) * 65)},
    ],
)
def test_counts_out_of_bounds_are_refused(server: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ContentError, match="heartbeat"):
        server.fleet.heartbeats.record("a", heartbeat_of("a", **wrong))

    assert server.fleet.heartbeats.get("a") is None


def test_a_device_that_has_fetched_no_desired_state_yet_says_so(server: Any) -> None:
    server.fleet.heartbeats.record("a", heartbeat_of("a", state=ReportedState(-1)))
    assert server.fleet.heartbeats.get("a").heartbeat.state.revision == -1
    with pytest.raises(ContentError, match=r"heartbeat\.state\.revision: must lie between -1"):
        server.fleet.heartbeats.record("a", heartbeat_of("a", state=ReportedState(-2)))
