"""Agent and server as processes, both killed with -9 again and again: no committed event is lost or kept twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.support.fleet import running_server

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.server.fleet.tables import EventRow
from hedgerow.server.store.database import Database

REPOSITORY = Path(__file__).parents[2]
AGENT = """
    import sys, time
    from pathlib import Path
    import msgspec
    from hedgerow.edge_agent.config import LinkConfig, read_config
    from hedgerow.edge_agent.home import AgentHome
    from hedgerow.edge_agent.link.link import Link
    from hedgerow.edge_agent.outbox.store import Outbox
    from hedgerow.shared.messages import Notice
    from tests.support.fleet import heartbeat_of, last_known_time

    home = AgentHome(Path(sys.argv[1]))
    quick = LinkConfig(heartbeat_interval_s=0.2, poll_wait_s=5, max_backoff_s=0.2)
    config = msgspec.structs.replace(read_config(home.config), link=quick)
    outbox = Outbox(home.outbox)
    link = Link(home, config, outbox, last_known_time(home),
                heartbeat=lambda: heartbeat_of("device-0"), on_desired=lambda _: None)
    link.start()
    for n in range(int(sys.argv[2])):
        sequence = outbox.put("info", Notice("n", str(n))).sequence
        print(sequence, flush=True)
        time.sleep(0.002)
    while outbox.pending():
        time.sleep(0.02)
    print("empty", flush=True)
"""


def start_agent(home: Path, log: Path, events: int) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        command = [sys.executable, "-c", textwrap.dedent(AGENT), str(home), str(events)]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=out)


def start_server(home: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.fleet", "--home", str(home), "--port", str(port)]
    child = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline().startswith(b"https://")
    return child


def kill(child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.wait(20)
    if child.stdout is not None:
        child.stdout.close()


def eventually(what: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def committed(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split() if line.isdigit()]


@pytest.mark.system
@pytest.mark.slow
def test_no_committed_event_is_lost_or_kept_twice_when_both_ends_are_killed(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        home = server.join_device(tmp_path / "home", "device-0")
        port = server.gateway.port
    log = tmp_path / "agent.log"
    log.touch()
    chance = random.Random(5)
    running = start_server(tmp_path / "server", port)
    for n in range(3):
        agent = start_agent(home.path, log, 100_000)
        before = len(committed(log))
        eventually(lambda: len(committed(log)) > before + 30 + chance.randrange(60))  # noqa: B023
        for child in chance.sample([agent, running], 2) if n % 2 else [agent]:
            kill(child)
        if n % 2:
            running = start_server(tmp_path / "server", port)
    agent = start_agent(home.path, log, 20)
    assert agent.wait(90) == 0
    assert log.read_text().endswith("empty\n")
    kill(running)

    with_epoch = Outbox(AgentHome(home.path).outbox)
    database = Database(f"sqlite:///{tmp_path / 'server' / 'hedgerow.db'}")
    with database.transaction() as session:
        kept = session.execute(
            select(EventRow.epoch, EventRow.sequence, EventRow.kind).order_by(EventRow.id)
        ).all()
    database.close()
    told = committed(log)

    assert {epoch for epoch, _, _ in kept} == {with_epoch.epoch}
    assert {kind for _, _, kind in kept} == {"notice"}
    assert [sequence for _, sequence, _ in kept] == list(range(1, told[-1] + 1))
    assert len(told) > 90 and set(told) <= {sequence for _, sequence, _ in kept}
    with_epoch.close()


def test_port_is_free_again_after_the_helper_server_stopped(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        port = server.gateway.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
