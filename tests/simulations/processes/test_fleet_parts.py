"""Waiting, ending and asking: what the demo's processes are held with, and what is said when one lets go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hedgerow.edge_agent.home import AgentHome
from hedgerow.shared.errors import TransportError, UnsupportedError
from hedgerow.simulations.processes import broker as broker_module
from hedgerow.simulations.processes.broker import Broker, find_mosquitto, free_port
from hedgerow.simulations.processes.fleet import Agent, children_of, in_parallel, wait_for
from hedgerow.simulations.processes.workplace import Workplace

SLEEPS = [sys.executable, "-S", "-c", "print('up', flush=True); import time; time.sleep(60)"]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(tmp_path)
    yield place
    place.close()


def up(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_waiting_ends_as_soon_as_it_is_so(work: Workplace) -> None:
    answers = iter([False, True])

    wait_for(work, "it", lambda: next(answers), 30)

    assert next(answers, None) is None


def test_waiting_too_long_says_for_what_and_how_long(work: Workplace) -> None:
    with pytest.raises(TransportError, match="the model ships: not within 0 s"):
        wait_for(work, "the model ships", lambda: False, 0.01)


def test_an_agent_that_does_not_answer_yet_is_waited_for_and_then_told(work: Workplace) -> None:
    asked: list[bool] = []

    def done() -> bool:
        asked.append(True)
        if len(asked) == 1:
            raise TransportError("d does not answer")
        return True

    wait_for(work, "it", done, 30)
    assert len(asked) == 2

    def never() -> bool:
        raise TransportError("d does not answer")

    with pytest.raises(TransportError, match="d does not answer"):
        wait_for(work, "it", never, 0.01)


def test_waiting_ends_when_a_process_does(work: Workplace) -> None:
    work.spawn("child", [sys.executable, "-S", "-c", "raise SystemExit('gone')"]).wait(30)

    with pytest.raises(TransportError, match="child ended with 1: gone"):
        wait_for(work, "it", lambda: True, 30)


def test_a_process_ended_on_purpose_is_not_missed(work: Workplace) -> None:
    process = up(work.spawn("child", SLEEPS))

    assert work.end(process, signal.SIGKILL) == -signal.SIGKILL
    work.check()


def test_the_last_started_is_ended_first(
    work: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "order"
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n    open(sys.argv[1], 'a').write(sys.argv[2]); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    )
    ended: list[int] = []
    processes = [
        up(work.spawn(name, [sys.executable, "-S", "-c", program, str(told), name])) for name in "ab"
    ]
    real = subprocess.Popen.terminate

    def terminate(process: Any) -> None:
        ended.append(process.pid)
        real(process)

    monkeypatch.setattr(subprocess.Popen, "terminate", terminate)

    work.close()
    work.close()

    assert ended == [process.pid for process in reversed(processes)]
    assert sorted(told.read_text()) == ["a", "b"]
    assert [process.returncode for process in processes] == [0, 0]


def test_a_log_goes_on_where_it_stopped_and_its_end_is_bounded(work: Workplace) -> None:
    for word in ("first", "second"):
        work.spawn("child", [sys.executable, "-S", "-c", f"import sys; sys.stderr.write('{word} ')"]).wait(30)

    assert work.tail("child") == "first second"
    (work.logs / "child.log").write_bytes(b"x" * 5000 + "ä".encode() * 1000)
    assert work.tail("child") == "ä" * 1000
    (work.logs / "child.log").write_bytes(b"\xff" * 10)
    assert work.tail("child") == "\ufffd" * 10


def test_surroundings_are_added_and_arithmetic_keeps_to_one_thread(work: Workplace) -> None:
    program = (
        "import os; print(os.environ['MINE'], os.environ['OMP_NUM_THREADS'], os.getpgid(0) == os.getpid())"
    )
    process = work.spawn("child", [sys.executable, "-S", "-c", program], {"MINE": "yes"})

    assert process.stdout is not None
    assert process.stdout.readline() == "yes 1 True\n", "a session of its own: Ctrl-C does not reach it"
    assert "MINE" not in os.environ


def test_descendants_are_found_and_none_once_it_ended(work: Workplace) -> None:
    program = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "print('up', flush=True); p.wait()"
    )
    process = up(work.spawn("parent", [sys.executable, "-S", "-c", program]))
    children = children_of(process.pid)
    try:
        assert [child.ppid() for child in children] == [process.pid]
    finally:
        work.end(process, signal.SIGKILL)
        for child in children:
            child.kill()

    assert children_of(process.pid) == []


def test_devices_are_made_in_order_and_the_first_trouble_is_told() -> None:
    def square(number: int) -> Any:
        return number * number

    found: list[Any] = in_parallel(square, 7)
    assert found == [n * n for n in range(7)]
    assert in_parallel(square, 0) == []

    def make(number: int) -> Any:
        if number == 3:
            raise TransportError("no token for 3")
        return number

    with pytest.raises(TransportError, match="no token for 3"):
        in_parallel(make, 6)


class Api(BaseHTTPRequestHandler):
    """An agent's local API that answers as it is told."""

    answer: tuple[int, bytes] = (200, b"{}")

    def do_GET(self) -> None:
        known = self.path == "/v1/status" and self.headers["authorization"] == "Bearer sesame"
        status, body = self.answer if known else (401, b"")
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made = Agent.__new__(Agent)  # joining needs a server; what is asked here needs the agent's files alone
    made.device, made.home, made.process = "dev-a", AgentHome(tmp_path / "dev-a"), None
    made.home.api_port_note.parent.mkdir(parents=True, exist_ok=True)
    made.home.api_port_note.write_text(str(server.server_port))
    made.home.api_token.parent.mkdir(parents=True, exist_ok=True)
    made.home.api_token.write_text("sesame\n")
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_agent_tells_its_status_to_who_has_its_token(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Api, "answer", (200, json.dumps({"alarms_active": []}).encode()))

    assert agent.status() == {"alarms_active": []}
    agent.home.api_token.write_text("guess")
    with pytest.raises(TransportError, match=r"dev-a does not answer: .*401"):
        agent.status()


@pytest.mark.parametrize("answer", [(500, b"{}"), (200, b"not json"), (200, b""), (200, b"\xff")])
def test_an_agent_that_answers_nonsense_does_not_answer(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes]
) -> None:
    monkeypatch.setattr(Api, "answer", answer)

    with pytest.raises(TransportError, match="dev-a does not answer"):
        agent.status()


@pytest.mark.parametrize("note", ["", "port", "0"])
def test_an_agent_that_is_not_up_yet_does_not_answer(agent: Agent, note: str) -> None:
    agent.home.api_port_note.write_text(note)
    with pytest.raises(TransportError, match="dev-a does not answer"):
        agent.status()
    agent.home.api_port_note.unlink()
    with pytest.raises(TransportError, match="dev-a does not answer"):
        agent.status()


def test_ending_an_agent_that_does_not_run_is_harmless(agent: Agent) -> None:
    assert agent.end() == 0


def program(folder: Path, text: str) -> str:
    path = folder / "mosquitto"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_without_its_program_mosquitto_is_asked_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)

    with pytest.raises(UnsupportedError, match="apt install mosquitto"):
        Broker(tmp_path, kind="mosquitto").start()


def test_a_broker_that_ends_at_once_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = program(tmp_path, "echo 'address in use' >&2; exit 3")
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: text)
    broker = Broker(tmp_path / "b", kind="mosquitto")

    with pytest.raises(TransportError, match="ended with status 3: address in use"):
        broker.start()
    broker.close()


def test_a_broker_that_never_listens_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = program(tmp_path, f"echo $$ > {tmp_path / 'pid'}; exec sleep 60")
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: text)
    monkeypatch.setattr(broker_module, "_START_S", 0.3)
    broker = Broker(tmp_path / "b", kind="mosquitto")

    with pytest.raises(TransportError, match=rf"did not listen on 127\.0\.0\.1:{broker.port} within 0\.3 s"):
        broker.start()

    assert broker.pid is None
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("root", [True, False])
def test_the_brokers_own_configuration_keeps_sessions_and_listens_on_the_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: "/bin/mosquitto")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    broker = Broker(tmp_path, kind="mosquitto", port=2000, extra="allow_zero_length_clientid true\n")

    command = broker._mosquitto()

    text = (tmp_path / "broker.conf").read_text()
    lines = text.splitlines()
    assert command == ["/bin/mosquitto", "-c", str(tmp_path / "broker.conf")]
    assert (lines[0] == "user root") is root
    assert {"persistence true", f"persistence_location {tmp_path}/", "listener 2000 127.0.0.1"} <= set(lines)
    assert lines[-1] == "allow_zero_length_clientid true"


def test_other_listeners_and_whole_configurations_replace_the_brokers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: "/bin/mosquitto")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    Broker(tmp_path, kind="mosquitto", plain=False, extra="listener 8883\n")._mosquitto()
    mine = (tmp_path / "broker.conf").read_text()
    Broker(tmp_path, kind="mosquitto", config="listener 9\n")._mosquitto()

    assert "allow_anonymous" not in mine and mine.endswith("listener 8883\n")
    assert (tmp_path / "broker.conf").read_text() == "listener 9\n"


def test_stopping_what_never_started_is_harmless_and_a_given_folder_stays(tmp_path: Path) -> None:
    broker = Broker(tmp_path, kind="embedded", port=4321)
    broker.stop()
    broker.close()

    assert tmp_path.is_dir()
    assert (broker.url, broker.pid) == ("mqtt://127.0.0.1:4321", None)


def test_free_ports_are_free_and_mosquitto_is_found_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1024 <= free_port() <= 65535
    monkeypatch.setenv("PATH", str(tmp_path))
    text = program(tmp_path, "exit 0")
    assert find_mosquitto() == text
