"""A broker of one's own: it listens when started, is gone when stopped, and says why it cannot start."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.support.broker import need_broker
from tests.support.telemetry import wait_until

from hedgerow.shared.errors import TransportError
from hedgerow.simulations.processes import broker as broker_module
from hedgerow.simulations.processes.broker import Broker, Kind

KINDS = [pytest.param("mosquitto", marks=pytest.mark.mosquitto), "embedded"]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_pass_and_after_the_stop_nobody_listens(kind: Kind) -> None:
    need_broker(kind)
    heard: list[bytes] = []
    with Broker(kind=kind) as broker:
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="c", protocol=paho.MQTTv311)
        client.on_message = lambda _c, _d, message: heard.append(bytes(message.payload))
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect(broker.host, broker.port)
        client.subscribe("t", 1)
        client.loop_start()
        assert subscribed.wait(10)
        client.publish("t", b"hello", qos=1)
        assert wait_until(lambda: heard == [b"hello"])
        client.disconnect()
        client.loop_stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((broker.host, broker.port), timeout=2)
    assert broker.pid is None


@pytest.mark.mosquitto
def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    need_broker("mosquitto")
    with pytest.raises(TransportError, match="ended with status"):
        Broker(tmp_path, kind="mosquitto", extra="no_such_option 1\n").start()


def test_without_mosquitto_the_embedded_broker_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)

    assert Broker().kind == "embedded"


def test_its_own_folder_goes_with_it() -> None:
    broker = Broker(kind="embedded")
    folder = broker._folder
    assert folder.is_dir()

    broker.close()

    assert not folder.exists()
