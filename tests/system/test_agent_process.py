"""The agent as a process among real neighbours: what it loads, what it says, what it survives."""

from __future__ import annotations

import signal
import subprocess
import time

import psutil
import pytest
from tests.support.agent_bed import TOPIC, AgentBed, until

from hedgerow.edge_agent.config import LinkConfig
from hedgerow.edge_agent.samples.store import SampleStore

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("agent-process")]
OUTAGE_S = 61.0
NEVER_LOADED = {
    "alembic", "dp_accounting", "fastapi", "flwr", "hedgerow.models", "hedgerow.server", "httpx", "onnx", "opacus",
    "rich", "sqlalchemy", "torch", "tuf", "typer", "zeroconf", "cryptography",
}  # fmt: skip


def serving(bed: AgentBed) -> bool:
    status = bed.status()
    return bool(status and status["broker_connected"] and status["server"]["connected"])


def server_lost(bed: AgentBed) -> bool:
    status = bed.status()
    return bool(status and not status["server"]["connected"])


def broker_is(bed: AgentBed, *, connected: bool) -> bool:
    status = bed.status()
    return bool(status and status["broker_connected"] is connected)


def telemetry(bed: AgentBed, counter: str) -> int:
    return int(bed.status().get("telemetry", {}).get(counter, 0))


def alarm_and_calm(bed: AgentBed) -> None:
    """Publish a fault, then enough quiet windows for its end."""
    bed.publish(2, 60.0)
    bed.publish(6)


def test_a_fault_in_the_readings_reaches_the_server_from_a_small_process(bed: AgentBed) -> None:
    bed.start()
    until(lambda: serving(bed))
    bed.publish(60)
    until(lambda: bed.status().get("samples", {}).get("window", 0) >= 59)
    answer = until(lambda: (found := bed.answer()).get("reason") == "champion" and found)
    assert (answer["source"]["runtime"], answer["source"]["precision"]) == ("onnxruntime", "int8")
    assert answer["source"]["bundle"] == bed.bundle

    alarm_and_calm(bed)
    alarms = until(lambda: bed.events("alarm"))
    assert {alarm["detail"]["bundle"] for alarm in alarms} <= {bed.bundle, ""}
    until(lambda: bed.events("alarm-cleared"))
    assert bed.status()["alarms_active"] == []

    loaded = bed.loaded()
    assert "hedgerow.edge_agent.daemon" in loaded
    assert {name for name in NEVER_LOADED if name in loaded} == set()
    assert not any("litert" in name and not name.startswith("hedgerow.") for name in loaded)


def test_sigterm_ends_it_in_time_with_all_its_children(bed: AgentBed) -> None:
    bed.configure(trainer=True)  # its question which recipes there are runs as a child
    try:
        pid = bed.start()
        children = until(lambda: psutil.Process(pid).children(recursive=True))
        assert bed.stop() == 0
    finally:
        bed.configure(trainer=False)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not bed.home.api_port_note.exists()


def test_sigkill_loses_nothing_committed_and_it_serves_again_without_any_network(bed: AgentBed) -> None:
    bed.start()
    until(lambda: serving(bed))
    bed.publish(60)
    before = until(lambda: (n := bed.status().get("samples", {}).get("window", 0)) >= 59 and n)
    told = len(bed.events("alarm"))
    bed.kill_server()
    alarm_and_calm(bed)
    # What must survive is committed, whatever else the outbox holds.
    until(lambda: bed.waiting("alarm") and bed.waiting("alarm-cleared"))
    pending = bed.status()["outbox_pending"]
    bed.stop(signal.SIGKILL)
    bed.broker.stop()

    bed.start()
    answer = until(lambda: (found := bed.answer()).get("reason") == "champion" and found)
    assert answer["source"]["bundle"] == bed.bundle
    status = bed.status()
    assert not status["broker_connected"]
    assert status["samples"]["window"] >= before
    assert status["outbox_pending"] >= pending

    bed.broker.start()
    bed.start_server()
    until(lambda: bed.status().get("outbox_pending") == 0)
    assert len(bed.events("alarm")) > told
    until(lambda: serving(bed))


def test_garbage_on_its_topics_is_counted_and_it_goes_on(bed: AgentBed) -> None:
    bed.start()
    until(lambda: serving(bed))
    garbage = (
        b"",
        b"{",
        b"\xff" * 300,
        b'{"t": 1, "a": 1e400}',
        b'{"t": "now", "a": {}}',
        b"[" * 50_000,
        b"x" * 600_000,
    )
    before = until(lambda: bed.status().get("telemetry"))
    for number, payload in enumerate(garbage):
        bed.publisher.publish(10**9 + number, TOPIC, payload)
    until(lambda: telemetry(bed, "quarantined") >= before["quarantined"] + len(garbage))
    bed.publish(3)
    until(lambda: telemetry(bed, "readings") > before["readings"])
    # A process that has just begun may still be loading its model: it answers "unknown" until then, and says so.
    until(lambda: bed.answer().get("reason") in ("champion", "baseline"))


def test_broker_and_server_come_back_and_what_happened_meanwhile_arrives(bed: AgentBed) -> None:
    bed.start()
    until(lambda: serving(bed))
    bed.publish(40)
    before = len(bed.events("alarm"))
    bed.kill_server()
    until(lambda: server_lost(bed))
    bed.broker.stop()
    until(lambda: broker_is(bed, connected=False))
    bed.broker.start()
    until(lambda: broker_is(bed, connected=True))
    alarm_and_calm(bed)
    until(lambda: bed.waiting("alarm"))
    bed.start_server()

    until(lambda: len(bed.events("alarm")) > before)
    until(lambda: serving(bed))


@pytest.mark.timeout(300)
def test_broker_and_server_gone_for_more_than_a_minute_cost_nothing_that_was_committed(bed: AgentBed) -> None:
    """With the waits between tries that an agent has by default, which grow to half a minute."""
    bed.configure(trainer=False, max_backoff_s=LinkConfig().max_backoff_s)
    try:
        bed.start()
        until(lambda: serving(bed))
        bed.publish(40)
        before = len(bed.events("alarm"))
        bed.kill_server()
        alarm_and_calm(bed)
        until(lambda: bed.waiting("alarm") and bed.waiting("alarm-cleared"))
        stored = bed.status()["samples"]["window"]
        bed.broker.stop()
        gone_until = time.monotonic() + OUTAGE_S
        until(lambda: broker_is(bed, connected=False))
        answers = 0
        while time.monotonic() < gone_until:
            answers += bed.answer().get("reason") == "champion"
            time.sleep(0.5)
        assert answers > 20, "it serves on"
        bed.broker.start()
        bed.start_server()

        until(lambda: serving(bed), 2 * OUTAGE_S)
        until(lambda: len(bed.events("alarm")) > before)
        until(lambda: bed.status().get("outbox_pending") == 0)
        assert bed.waiting("alarm") == 0
        bed.publish(40)
        until(lambda: bed.status().get("samples", {}).get("window", 0) >= stored + 39)
    finally:
        bed.configure(trainer=False)


def test_disk_that_refuses_every_write_does_not_stop_it_from_serving(bed: AgentBed) -> None:
    # A limit of zero bytes on every file is what a full disk is to a process; its log goes to a pipe.
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    bed.home.api_port_note.write_text("0")
    bed.start(before=full, stderr=subprocess.PIPE)
    assert bed.agent is not None and bed.agent.stderr is not None
    # The port cannot be written down either, so that it is read from the log.
    log = b""
    while b"local API at" not in log:
        line = bed.agent.stderr.readline()
        assert line, log.decode()
        log += line
    port = log.rsplit(b":", 1)[1].strip().decode()
    bed.home.api_port_note.write_text(port)

    answer = until(lambda: (found := bed.answer()).get("reason") == "champion" and found)
    assert answer["source"]["bundle"] == bed.bundle
    until(lambda: serving(bed))
    before = len(bed.events("alarm"))
    bed.publish(60)
    alarm_and_calm(bed)
    until(lambda: len(bed.events("alarm")) > before)
    assert any("in-memory" in event["detail"].get("code", "") for event in bed.events("notice"))
    assert bed.stop() == 0

    kept = SampleStore(bed.home.samples, max_bytes=1 << 28, max_age_s=None, read_only=True)
    assert kept.count("window") >= 59, "what was on the disk before is still there"
    kept.close()
