"""Brokers for tests: mosquitto plain or with TLS, the embedded one, and publishers that know what was acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion
from tests.support.tools import need_program

from hedgerow.simulations.demo.broker import Broker, Kind, find_mosquitto, free_port


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
    """Publishes with QoS 1 and knows which messages the broker has acknowledged; reconnects by itself."""

    def __init__(self, broker: Broker, name: str = "publisher") -> None:
        self.acknowledged: set[int] = set()
        self._number: dict[int, int] = {}
        self._early: set[int] = set()
        self._lock = threading.Lock()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, protocol=paho.MQTTv311
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_publish = self._on_publish
        self._client.connect(broker.host, broker.port, keepalive=10)
        self._client.loop_start()

    def publish(self, number: int, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish message ``number``; it is in ``acknowledged`` once the broker has it."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        with self._lock:
            self._number[info.mid] = number
            if info.mid in self._early:
                self._early.discard(info.mid)
                self.acknowledged.add(number)

    def _on_publish(self, _client: object, _data: object, mid: int, *_: object) -> None:
        with self._lock:
            # The acknowledgement may come before publish() has told the packet's id.
            if mid in self._number:
                self.acknowledged.add(self._number.pop(mid))
            else:
                self._early.add(mid)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Broker", "Publisher", "TlsFiles", "find_mosquitto", "free_port", "need_broker", "running_broker"]
