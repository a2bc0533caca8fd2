"""The whole link against a real server that comes, goes, and changes its mind."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from tests.support.fleet import FleetServer, heartbeat_of, last_known_time, running_fleet, running_server

from hedgerow.edge_agent.config import AgentConfig, LinkConfig, read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.renew import renew
from hedgerow.edge_agent.link.health import disk_free_bytes, pss_bytes
from hedgerow.edge_agent.link.link import Link
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.shared.errors import StorageError
from hedgerow.shared.messages import BundleTarget, DesiredState, JobAssignment, Notice, TrainerExit


class Agent:
    """A home's link and outbox, and what the server wanted so far."""

    def __init__(self, home: AgentHome, *, interval_s: float = 3600, fail_first: bool = False) -> None:
        self.home = home
        self.wanted: queue.Queue[DesiredState] = queue.Queue()
        self.outbox = Outbox(home.outbox)
        self.clock = last_known_time(home)
        self.fail = fail_first
        self.alarms = 0
        config: AgentConfig = msgspec.structs.replace(
            read_config(home.config),
            link=LinkConfig(heartbeat_interval_s=interval_s, poll_wait_s=30, max_backoff_s=0.3),
        )
        self.link = Link(
            home, config, self.outbox, self.clock, heartbeat=self.heartbeat, on_desired=self.on_desired
        )

    def heartbeat(self) -> Any:
        return heartbeat_of("device-0", alarms_total=self.alarms, pss_bytes=pss_bytes())

    def on_desired(self, state: DesiredState) -> None:
        if self.fail:
            self.fail = False
            raise StorageError("not now")
        self.wanted.put(state)

    def next_wish(self) -> DesiredState:
        return self.wanted.get(timeout=60)

    def __enter__(self) -> Agent:
        self.link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop(10)
        self.outbox.close()


def eventually(what: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def received(server: FleetServer) -> list[int]:
    return [kept.event.sequence for kept in reversed(server.fleet.events.latest(limit=1000))]


def test_wishes_arrive_as_they_are_made(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)), Agent(home) as agent:
        assert agent.next_wish() == DesiredState(0)
        server.fleet.desired.set_job(["device-0"], JobAssignment("j", "r", "h"))
        assert [job.job_id for job in agent.next_wish().jobs] == ["j"]
        server.fleet.desired.set_bundle(["device-0"], BundleTarget("m", 1, ""))
        assert agent.next_wish().revision == 2
        assert agent.wanted.empty()


def test_wish_that_could_not_be_taken_is_handed_over_again(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (_, (home,)), Agent(home, fail_first=True) as agent:
        assert agent.next_wish() == DesiredState(0)


def test_heartbeats_come_at_start_at_intervals_and_when_asked(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)):
        with Agent(home) as agent:
            eventually(lambda: server.fleet.heartbeats.get("device-0"))
            agent.alarms = 5
            agent.link.heartbeat_now()
            eventually(lambda: server.fleet.heartbeats.get("device-0").heartbeat.alarms_total == 5)  # type: ignore[union-attr]
            assert agent.clock.known_us > 0 and agent.clock.clock_ok()
        with Agent(home, interval_s=0.1) as agent:
            agent.alarms = 6
            eventually(lambda: server.fleet.heartbeats.get("device-0").heartbeat.alarms_total == 6)  # type: ignore[union-attr]


def test_events_are_sent_as_they_are_put_and_deleted_after_the_ack(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)), Agent(home) as agent:
        for n in range(600):
            agent.outbox.put("info", Notice("n", str(n)))
        eventually(lambda: agent.outbox.pending() == 0)
        assert received(server) == list(range(1, 601))


def test_refused_event_does_not_block_the_rest(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)):
        agent = Agent(home)
        for n in range(3):
            agent.outbox.put("info", Notice("n", str(n)))
        agent.outbox._database.execute(
            "UPDATE events SET body = ? WHERE sequence = 2",
            (
                b'{"sequence":2,"at_us":9223372036854775807,"severity":"info","body":{"type":"notice","code":"","text":""}}',
            ),
        )
        with agent:
            eventually(lambda: agent.outbox.pending() == 0)
        kinds = [type(kept.event.body).__name__ for kept in reversed(server.fleet.events.latest())]

    assert kinds == ["Notice", "GapRecord", "Notice"]


def test_trainer_exit_is_told_at_once(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)), Agent(home) as agent:
        told: queue.Queue[tuple[str, TrainerExit]] = queue.Queue()
        server.fleet.on_trainer_exit(lambda device, exited: told.put((device, exited)))
        agent.link.trainer_exited(TrainerExit("job", -9, "killed"))
        assert told.get(timeout=20) == ("device-0", TrainerExit("job", -9, "killed"))


def test_server_gone_and_back_costs_nothing_committed(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        home = server.join_device(tmp_path / "home", "device-0")
        port = server.gateway.port
        server.fleet.desired.set_job(["device-0"], JobAssignment("before", "r", "h"))
        agent = Agent(home)
        agent.link.start()
        agent.outbox.put("info", Notice("n", "1"))
        eventually(lambda: agent.outbox.pending() == 0)
        assert agent.next_wish().jobs[0].job_id == "before"
        up, down = agent.link.traffic.totals()
        assert up > 0 and down > 0

    for n in range(20):
        agent.outbox.put("warning", Notice("n", f"while it was gone {n}"))
    eventually(lambda: not agent.link.status().connected)
    status = agent.link.status()
    assert "cannot be reached" in status.reason and status.down_s >= 0
    assert agent.outbox.pending() == 20

    with running_server(tmp_path / "server", port=port) as server:
        eventually(lambda: agent.outbox.pending() == 0)
        assert received(server) == list(range(1, 22))
        server.fleet.desired.clear_job("before")
        assert agent.next_wish() == DesiredState(2)
        eventually(lambda: agent.link.status().connected)
        assert agent.link.status().reason == ""
        agent.link.stop(10)
        agent.outbox.close()


def test_revoked_device_goes_on_and_knows_why(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)), Agent(home) as agent:
        agent.next_wish()
        server.fleet.devices.revoke("device-0", "stolen")
        agent.link.heartbeat_now()
        eventually(lambda: "revoked" in agent.link.status().reason)
        agent.outbox.put("info", Notice("n", "kept"))
        assert agent.outbox.pending() == 1
        assert received(server) == []


def test_link_goes_on_with_a_renewed_identity(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (server, (home,)), Agent(home) as agent:
        agent.next_wish()
        eventually(lambda: server.fleet.heartbeats.get("device-0"))
        serials: list[int] = []
        identify = server.fleet.devices.registry.identify

        def record(der: bytes) -> Any:
            peer = identify(der)
            serials.append(peer.serial)
            return peer

        server.fleet.devices.registry.identify = record  # type: ignore[method-assign]
        renew(home)
        agent.link.identity_renewed()
        agent.link.heartbeat_now()
        agent.outbox.put("info", Notice("n", ""))
        eventually(lambda: agent.outbox.pending() == 0)
        agent.link.heartbeat_now()
        eventually(lambda: len(set(serials)) == 2)


def test_stop_does_not_wait_for_the_long_poll(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 1) as (_, (home,)):
        agent = Agent(home)
        with agent:
            agent.next_wish()
        names = [thread.name for thread in threading.enumerate()]

    assert "hedgerow-desired" not in names and "hedgerow-report" not in names


def test_health_is_read_from_the_system(tmp_path: Path) -> None:
    assert 5_000_000 < pss_bytes() < 10_000_000_000
    assert disk_free_bytes(tmp_path) > 0
    assert disk_free_bytes(tmp_path / "nowhere") == 0
