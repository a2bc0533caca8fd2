from __future__ import annotations

import socket
import threading

import pytest

from hedgerow.edge_agent.link.traffic import Traffic, wire_bytes


def test_totals_add_up_from_many_threads() -> None:
    traffic = Traffic()

    def work() -> None:
        for _ in range(1000):
            traffic.add(1, 2)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert traffic.totals() == (8000, 16000)


def test_kernel_counts_what_went_over_a_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
    ):
        far, _ = listener.accept()
        with far:
            near.sendall(b"x" * 5000)
            received = b""
            while len(received) < 5000:
                received += far.recv(5000)
            far.sendall(b"y" * 300)
            while near.recv(300, socket.MSG_PEEK) != b"y" * 300:
                continue
            counted = wire_bytes(near)
            if counted is None:
                pytest.skip("this kernel does not count bytes per connection")
            assert counted[1] == 300
            # The last bytes sent are counted once they are acknowledged; the handshake may count as one.
            assert 5000 <= counted[0] <= 5001


def test_closed_or_other_sockets_count_as_unknown() -> None:
    closed = socket.socket()
    closed.close()
    assert wire_bytes(closed) is None
    left, right = socket.socketpair()
    assert wire_bytes(left) is None
    left.close()
    right.close()
