"""The supervisor hears that the agent is ready and alive, over a real datagram socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.edge_agent.watchdog import Watchdog


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        yield listener, address


def test_it_says_ready_alive_and_stopping(supervisor: tuple[socket.socket, str]) -> None:
    listener, address = supervisor
    watchdog = Watchdog({"NOTIFY_SOCKET": address})

    assert watchdog.ready()
    assert watchdog.beat("3 windows\nstored")
    assert watchdog.beat()
    assert watchdog.stopping()

    heard = [listener.recv(200) for _ in range(4)]
    assert heard == [b"READY=1", b"WATCHDOG=1\nSTATUS=3 windows stored", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_socket_is_reached() -> None:
    name = f"hedgerow-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(5)

        assert Watchdog({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_interval_is_what_the_supervisor_asks_of_this_process(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert Watchdog({"NOTIFY_SOCKET": "/x"} | environment).interval_s == interval_s


def test_it_beats_while_alive_and_falls_silent_when_not(supervisor: tuple[socket.socket, str]) -> None:
    listener, address = supervisor
    watchdog = Watchdog({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "40000"})
    stop, healthy = threading.Event(), threading.Event()
    healthy.set()
    watching = threading.Thread(target=watchdog.watch, args=(healthy.is_set, stop))
    watching.start()

    assert [listener.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    healthy.clear()
    # What was sent before is heard first, however much of it; then nothing for many times the interval.
    listener.settimeout(0.3)
    with pytest.raises(TimeoutError):
        for _ in range(10_000):
            listener.recv(100)

    stop.set()
    watching.join(5)
    assert not watching.is_alive()


def test_without_a_supervisor_nothing_happens(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()

    assert not Watchdog({}).ready()
    assert not Watchdog({"NOTIFY_SOCKET": str(tmp_path / "gone")}).beat()
    Watchdog({}).watch(lambda: True, stop)
