"""The network between devices and server: bytes pass untouched, late, broken or not at all, as its weather says."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hedgerow.simulations.fleet.proxy import STRETCH, Network, Weather, break_at

WAIT_S = 10.0


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Return what comes back, empty if the connection breaks."""
    sender = threading.Thread(target=_send, args=(connection, data), daemon=True)
    sender.start()
    got = bytearray()
    try:
        while len(got) < len(data) and (more := connection.recv(65536)):
            got += more
    except OSError:
        return b""
    sender.join(WAIT_S)
    return bytes(got) if len(got) == len(data) else b""


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        return


def test_bytes_pass_untouched_in_fair_weather(echo: Echo) -> None:
    network = Network(echo.address)
    try:
        data = os.urandom(3_000_000)
        with connect(network.address(0)) as connection:
            assert exchange(connection, data) == data
        assert network.broken(0) == 0
    finally:
        network.close()


def test_each_way_takes_its_delay(echo: Echo) -> None:
    network = Network(echo.address, Weather(delay_ms=60))
    try:
        with connect(network.address(0)) as connection:
            began = time.monotonic()
            assert exchange(connection, b"ping") == b"ping"
            # Never earlier than both delays; how much later is the machine's affair.
            assert time.monotonic() - began >= 0.12
    finally:
        network.close()


def test_a_connection_breaks_at_the_chunk_that_was_drawn(echo: Echo) -> None:
    stormy = Weather(loss=0.5, seed=4)
    drawn = [break_at(stormy, 2, number, 0) for number in range(12)]
    assert {at is None for at in drawn} == {True, False}
    network = Network(echo.address, stormy)
    try:
        address, passed = network.address(2), []
        for _ in drawn:
            count = 0
            with connect(address) as connection:
                # Each exchange of one byte is two chunks: there and back.
                while 2 * count < STRETCH and exchange(connection, b"x") == b"x":
                    count += 1
            passed.append(count)
        assert passed == [STRETCH // 2 if at is None else at // 2 for at in drawn]
        assert network.broken(2) == sum(at is not None for at in drawn)
    finally:
        network.close()


def test_breaks_are_drawn_by_seed_device_and_connection() -> None:
    weather = Weather(loss=0.3, seed=1)
    table = {
        key: break_at(weather, *key)
        for key in [(d, c, s) for d in range(9) for c in range(9) for s in range(9)]
    }

    assert table == {key: break_at(weather, *key) for key in reversed(table)}
    share = sum(at is not None for at in table.values()) / len(table)
    assert share == pytest.approx(0.3, abs=4 * (0.21 / len(table)) ** 0.5)
    assert all(at is None or 0 <= at < STRETCH for at in table.values())
    assert table != {key: break_at(weather._replace(seed=2), *key) for key in table}


def test_a_device_that_is_cut_off_reaches_nobody_until_it_is_healed(echo: Echo) -> None:
    network = Network(echo.address)
    try:
        cut, other = network.address(0), network.address(1)
        with connect(cut) as before, connect(other) as untouched:
            assert exchange(before, b"hello") == b"hello"
            network.cut(0)
            assert exchange(before, b"hello") == b""
            with connect(cut) as refused:
                assert exchange(refused, b"hello") == b""
            assert exchange(untouched, b"hello") == b"hello"
        network.heal(0)
        with connect(cut) as again:
            assert exchange(again, b"hello") == b"hello"
        assert network.broken(0) == 2
    finally:
        network.close()


def test_a_server_that_is_down_ends_the_connection_and_is_found_again(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    network = Network(nobody)
    try:
        with connect(network.address(0)) as connection:
            assert exchange(connection, b"hello") == b""
    finally:
        network.close()


def test_closing_ends_connections_and_the_thread(echo: Echo) -> None:
    network = Network(echo.address)
    address = network.address(0)
    with connect(address) as connection:
        assert exchange(connection, b"hello") == b"hello"
        network.close()
        assert exchange(connection, b"hello") == b""
    with pytest.raises(OSError):
        connect(address)
    network.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "hedgerow-network"]
