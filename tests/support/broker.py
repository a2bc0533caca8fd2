"""Brokers for tests: mosquitto plain or with TLS, the embedded one, and publishers that know what was acknowledged."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion
from tests.support.tools import need_program

from hedgerow.simulations.processes.broker import Broker, Kind, find_mosquitto, free_port


def need_broker(kind: Kind) -> None:
    """Skip the test, saying so, where the broker is missing."""
    if kind == "mosquitto":
        need_program("mosquitto")
    else:
        pytest.importorskip("amqtt", reason="the embedded broker (amqtt) is not installed")


@contextmanager
def running_broker(folder: Path, kind: Kind = "mosquitto", *, extra: str = "") -> Iterator[Broker]:
    """Yield a plain broker on a free loopback port; skips where it is missing."""
    need_broker(kind)
    with Broker(folder / "broker", kind=kind, extra=extra) as broker:
        yield broker


class TlsFiles:
    """An authority, a server's certificate and clients' certificates by common name, as PEM files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)
        server = self._authority.issue_cert("127.0.0.1", "localhost")
        self.server_certificate, self.server_key = folder / "server.pem", folder / "server.key"
        server.cert_chain_pems[0].write_to_path(self.server_certificate)
        server.private_key_pem.write_to_path(self.server_key)

    def client(self, name: str) -> tuple[Path, Path]:
        """Return certificate and key of a client whose common name is ``name``."""
        issued = self._authority.issue_cert(f"{name}.device.invalid", common_name=name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key


class Publisher:
    """Publishes with QoS 1 in the order given, across outages, and knows which messages the broker has acknowledged.

    One thread alone drives paho. With paho's own thread a message published while it reconnects may overtake older
    ones, and what comes out of order is discarded as late by whoever listens.
    """

    def __init__(self, broker: Broker, name: str = "publisher") -> None:
        """Connect; returns once the broker has accepted the session. Raises TimeoutError if it does not."""
        self.acknowledged: set[int] = set()
        self._address = (broker.host, broker.port)
        self._waiting: deque[tuple[int, str, bytes, bool]] = deque()
        self._number: dict[int, int] = {}
        self._accepted = threading.Event()
        self._stop = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, protocol=paho.MQTTv311
        )
        self._client.on_connect = lambda *_: self._accepted.set()
        self._client.on_publish = self._on_publish
        self._thread = threading.Thread(target=self._run, name=f"publisher-{name}", daemon=True)
        self._thread.start()
        if not self._accepted.wait(20):
            self.close()
            raise TimeoutError(f"the broker at {self._address} accepts no session")

    def publish(self, number: int, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish message ``number``; it is in ``acknowledged`` once the broker has it."""
        self._waiting.append((number, topic, payload, retain))

    def close(self) -> None:
        """Leave the broker; what it has not acknowledged is let go."""
        self._stop.set()
        self._thread.join()
        self._client.disconnect()
        for _ in range(40):  # until the broker has closed; one that is gone is not waited for
            if self._client.loop(0.05) != paho.MQTT_ERR_SUCCESS:
                break

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._client.socket() is None:
                try:
                    self._client.connect(*self._address, keepalive=10)
                except OSError:
                    self._stop.wait(0.05)
                    continue
            self._client.loop(0.005)
            while self._client.is_connected() and self._waiting:
                number, topic, payload, retain = self._waiting.popleft()
                info = self._client.publish(topic, payload, qos=1, retain=retain)
                self._number[info.mid] = number

    def _on_publish(self, _client: object, _data: object, mid: int, *_: object) -> None:
        self.acknowledged.add(self._number.pop(mid))


__all__ = ["Broker", "Publisher", "TlsFiles", "find_mosquitto", "free_port", "need_broker", "running_broker"]
