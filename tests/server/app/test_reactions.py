"""Rollouts follow the fleet: who joins is served, who reports is counted, who is shut out is no longer awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy.exc import OperationalError
from tests.support.server_parts import Parts

from hedgerow.server.app import reactions
from hedgerow.server.app.reactions import Reactions
from hedgerow.server.bus import Bus
from hedgerow.server.delivery.values import Rollout
from hedgerow.server.fleet.service import Fleet
from hedgerow.shared.messages import ReportedState


def places(parts: Parts) -> dict[str, str]:
    return {p.device: p.state for r in parts.rollouts.in_force() for p in parts.rollouts.devices(r.id)}


def play(
    parts: Parts, happen: Callable[[], object], done: Callable[[], bool], bus: Bus | None = None
) -> None:
    """Let something happen while the reactions run, and wait until it had its effect."""

    async def story() -> None:
        parts.bus.attach(asyncio.get_running_loop())
        task = asyncio.create_task(Reactions(bus or parts.bus, parts.fleet, parts.rollouts).run())
        await asyncio.sleep(0)
        await asyncio.to_thread(happen)
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(done):
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


@pytest.fixture
def rolled_out(parts: Parts) -> Parts:
    parts.join("pump-1")
    version = parts.register()
    parts.rollouts.start(version.model, version.version)
    return parts


def test_a_device_that_joins_is_told_what_to_serve(rolled_out: Parts) -> None:
    play(rolled_out, lambda: rolled_out.join("pump-2"), lambda: "pump-2" in places(rolled_out))

    assert [target.version for target in rolled_out.fleet.desired.get("pump-2").bundles] == [1]


def test_a_device_that_serves_is_counted(rolled_out: Parts) -> None:
    version = rolled_out.registry.get("pump", 1)

    play(
        rolled_out,
        lambda: rolled_out.serves("pump-1", version),
        lambda: places(rolled_out)["pump-1"] == "serving",
    )

    assert rolled_out.rollouts.in_force()[0].state == "done"


def test_a_revoked_device_is_no_longer_awaited(rolled_out: Parts) -> None:
    play(
        rolled_out,
        lambda: rolled_out.fleet.devices.revoke("pump-1", "stolen"),
        lambda: "pump-1" not in places(rolled_out),
    )


def test_what_a_device_reports_is_on_the_disk_before_long(rolled_out: Parts) -> None:
    """A job that asks for a profile must find its devices also after a crash."""

    def written() -> bool:
        again = Fleet(rolled_out.database, Bus(), rolled_out.fleet.devices._authority, tuf_root=lambda: "{}")
        again.heartbeats.load()
        seen = again.heartbeats.get("pump-1")
        return (
            seen is not None and seen.heartbeat.state is not None and seen.heartbeat.state.profile == "pump"
        )

    play(rolled_out, lambda: rolled_out.report("pump-1", "pump"), written)


def test_lost_news_are_made_up_for(rolled_out: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactions listen to a bus on which nothing is ever published."""
    monkeypatch.setattr(reactions, "RECONCILE_S", 0.05)
    version = rolled_out.registry.get("pump", 1)

    def happen() -> None:
        rolled_out.join("pump-2")
        rolled_out.join("pump-3")
        rolled_out.fleet.devices.revoke("pump-1", "stolen")
        rolled_out.serves("pump-2", version)

    wanted = {"pump-2": "serving", "pump-3": "pending"}
    play(rolled_out, happen, lambda: places(rolled_out) == wanted, bus=Bus())


def test_a_database_that_fails_once_is_tried_again(
    rolled_out: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reactions, "RECONCILE_S", 0.05)
    broken = [OperationalError("select", {}, Exception("disk I/O error"))]
    real = rolled_out.rollouts.on_reported

    def on_reported(device: str, state: ReportedState) -> None:
        if broken:
            raise broken.pop()
        real(device, state)

    monkeypatch.setattr(rolled_out.rollouts, "on_reported", on_reported)
    version = rolled_out.registry.get("pump", 1)

    play(
        rolled_out,
        lambda: rolled_out.serves("pump-1", version),
        lambda: places(rolled_out)["pump-1"] == "serving",
    )

    assert "disk I/O error" in caplog.text
    assert not broken


def test_a_fleet_that_reports_all_at_once_is_written_down_together(
    rolled_out: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of a thousand devices has each report that it knows of it; other news need no thread at all."""
    heartbeats, flushed, heard = rolled_out.fleet.heartbeats, [0], []
    flush = heartbeats.flush

    def counted() -> int:
        flushed[0] += 1
        return flush()

    monkeypatch.setattr(heartbeats, "flush", counted)
    monkeypatch.setattr(rolled_out.rollouts, "on_reported", lambda device, state: heard.append(device))

    def happen() -> None:
        for number in range(200):
            rolled_out.bus.publish("device.heartbeat", device=f"pump-{number}", heartbeat=None)
            rolled_out.bus.publish("device.reported", device=f"pump-{number}", state=ReportedState(number))

    play(rolled_out, happen, lambda: len(heard) >= 200)

    assert heard == [f"pump-{number}" for number in range(200)]
    assert flushed[0] <= 20


def test_without_a_rollout_a_report_costs_the_rollouts_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reactions, "RECONCILE_S", 0.02)
    asked, looked = [], [0]
    in_force = parts.rollouts.in_force

    def counted() -> list[Rollout]:
        looked[0] += 1
        return in_force()

    monkeypatch.setattr(parts.rollouts, "in_force", counted)
    monkeypatch.setattr(parts.rollouts, "on_reported", lambda device, state: asked.append(device))
    for number in range(1, 6):
        parts.join(f"pump-{number}")
        parts.report(f"pump-{number}", "pump")

    play(parts, lambda: parts.report("pump-1", "other"), lambda: looked[0] >= 5)

    assert asked == []
