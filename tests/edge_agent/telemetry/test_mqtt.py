"""Telemetry over real brokers: sessions persist, acknowledged messages are neither lost nor used twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.support.broker import Publisher, TlsFiles, free_port, need_broker, running_broker
from tests.support.telemetry import T0_S, payload, profile, wait_until

from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.telemetry import mqtt as mqtt_module
from hedgerow.edge_agent.telemetry.broker import BrokerSettings
from hedgerow.edge_agent.telemetry.mqtt import MqttTelemetry
from hedgerow.edge_agent.telemetry.pipeline import Pipeline
from hedgerow.edge_agent.telemetry.reconnect import Backoff, VersionChoice
from hedgerow.shared.errors import StorageError
from hedgerow.shared.messages import Notice
from hedgerow.shared.profile import DeviceProfile, SourceSpec, WindowSpec
from hedgerow.shared.specs import Sample
from hedgerow.simulations.processes.broker import Broker, Kind

TAKEN_OVER = ("broker-taken-over", "broker-unsteady")
SOURCES = [Path(__file__).parents[3] / part for part in ("edge_agent", "shared", "simulations")]
KINDS = [pytest.param("mosquitto", marks=pytest.mark.mosquitto), "embedded"]


def rowwise() -> DeviceProfile:
    """Return a profile whose windows are single rows, so that every reading shows in the store."""
    return profile("a", window=WindowSpec(length=1))


class Agent:
    """The telemetry part of an agent over one store."""

    def __init__(self, url: str, folder: Path, device: DeviceProfile | None = None, **settings: Any) -> None:
        self.windows: list[Sample] = []
        self.notices: list[Notice] = []
        self.store = SampleStore(folder / "s.db", max_bytes=2**24, max_age_s=None)
        self.pipeline = Pipeline(device or rowwise(), self.store, on_window=self.windows.append)
        given: dict[str, Any] = {"client_id": "dev-a", "topic_prefix": "hedgerow/v1/dev-a", "keepalive_s": 5}
        self.mqtt = MqttTelemetry(
            BrokerSettings(url, **given | settings),
            self.pipeline,
            on_notice=self.notices.append,
            backoff=Backoff(0.05, 0.2),
        )

    def values(self) -> list[float]:
        batch = self.store.read("window")
        return [float(value) for value in batch.arrays[:, 0, 0]]


@contextmanager
def agent(url: str, folder: Path, device: DeviceProfile | None = None, **settings: Any) -> Iterator[Agent]:
    running = Agent(url, folder, device, **settings)
    running.mqtt.start()
    try:
        assert wait_until(lambda: running.mqtt.connected or bool(running.notices))
        yield running
    finally:
        assert running.mqtt.stop(30.0)
        running.store.close()


def subscribed(broker: Broker, probe: Agent, publisher: Publisher) -> None:
    """Return when the agent's subscription holds: a reading goes through."""
    publisher.publish(-1, "s/x", payload(-1, a=-1))
    assert wait_until(lambda: probe.pipeline.status().messages > 0), broker.kind


@pytest.mark.parametrize("kind", KINDS)
def test_readings_arrive_become_windows_and_results_go_out(tmp_path: Path, kind: Kind) -> None:
    heard: list[tuple[str, bytes]] = []
    with running_broker(tmp_path, kind) as broker, agent(broker.url, tmp_path, profile("a", "b")) as device:
        assert device.mqtt.version == ("5" if kind == "mosquitto" else "3.1.1")
        listener = paho.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=paho.MQTTv311)
        listener.on_message = lambda _c, _d, message: heard.append((message.topic, bytes(message.payload)))
        ready = threading.Event()
        listener.on_subscribe = lambda *_: ready.set()
        listener.connect(broker.host, broker.port)
        listener.subscribe("hedgerow/v1/#", 1)
        listener.loop_start()
        assert ready.wait(10)
        with Publisher(broker) as sensors:
            for n in range(20):
                sensors.publish(n, "s/x", payload(n, a=n, b=-n))
            sensors.publish(20, "s/x", b"\xffgarbage")
            assert wait_until(lambda: len(device.windows) == 17)
            device.mqtt.publish("up/alarm", b'{"score":9}')
            assert wait_until(lambda: ("hedgerow/v1/dev-a/up/alarm", b'{"score":9}') in heard)
        assert wait_until(lambda: device.pipeline.status().refused == {"malformed": 1})
        listener.disconnect()
        listener.loop_stop()
    assert ("hedgerow/v1/dev-a/up/status", b'{"online":true}') in heard


@pytest.mark.mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_messages_sent_while_the_agent_was_away_arrive_in_order(
    tmp_path: Path, version: Literal["5", "3.1.1"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VersionChoice, "first", version)
    with running_broker(tmp_path) as broker, Publisher(broker) as sensors:
        with agent(broker.url, tmp_path) as device:
            assert device.mqtt.version == version
            subscribed(broker, device, sensors)
        for n in range(300):
            sensors.publish(n, "s/x", payload(n, a=n))
        assert wait_until(lambda: len(sensors.acknowledged) == 301)

        with agent(broker.url, tmp_path) as device:
            assert wait_until(lambda: len(device.windows) == 300)
            assert device.values() == [-1.0, *map(float, range(300))]


@pytest.mark.mosquitto
@pytest.mark.parametrize("dated", [True, False])
def test_a_broker_outage_under_load_loses_and_repeats_nothing(tmp_path: Path, dated: bool) -> None:
    """The broker is stopped and started again with its state while sensors go on at about 200 messages a second."""
    device_profile = rowwise() if dated else profile("a", source=SourceSpec("s/x", fields={"a": "a"}), window=WindowSpec(length=1, rate_hz=1000.0, max_hold_rows=0))  # fmt: skip
    pause = threading.Event()
    with running_broker(tmp_path) as broker, Publisher(broker) as sensors:
        with agent(broker.url, tmp_path, device_profile) as device:
            subscribed(broker, device, sensors)
            for n in range(600):
                if n == 150:
                    broker.stop()
                if n == 450:
                    broker.start()
                sensors.publish(n, "s/x", payload(n, a=n))
                pause.wait(0.005)
            assert wait_until(lambda: len(sensors.acknowledged) == 601)
            assert wait_until(lambda: device.pipeline.status().readings >= 601)
        assert device.pipeline.status().readings == 601
    if dated:
        store = SampleStore(tmp_path / "s.db", max_bytes=2**24, max_age_s=None, read_only=True)
        assert store.read("window").arrays[:, 0, 0].tolist() == [-1.0, *map(float, range(600))]
        store.close()


@pytest.mark.mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_message_whose_acknowledgement_was_lost_is_used_once(
    tmp_path: Path, version: Literal["5", "3.1.1"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker goes away between the commit and the acknowledgement, and delivers the message again."""
    monkeypatch.setattr(VersionChoice, "first", version)
    undated = profile(
        "a", source=SourceSpec("s/x", fields={"a": "a"}), window=WindowSpec(length=1, rate_hz=1000.0)
    )
    cut = threading.Event()

    with running_broker(tmp_path) as broker, Publisher(broker) as sensors:
        with agent(broker.url, tmp_path, undated) as device:
            subscribed(broker, device, sensors)
            with Publisher(broker, "second") as others:

                def cut_once(_: Sample) -> None:
                    if not cut.is_set():
                        cut.set()
                        broker.stop()
                        broker.start()

                device.pipeline._on_window = cut_once
                others.publish(1, "s/x", payload(0, a=1))
                assert wait_until(lambda: device.pipeline.status().refused.get("redelivered", 0) >= 1)
                others.publish(2, "s/x", payload(0, a=2))
                assert wait_until(lambda: device.pipeline.status().readings == 3)

    assert cut.is_set()
    assert device.pipeline.status().readings == 3


AGENT = """
import sys, threading
from pathlib import Path
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.telemetry.broker import BrokerSettings
from hedgerow.edge_agent.telemetry.mqtt import MqttTelemetry
from hedgerow.edge_agent.telemetry.pipeline import Pipeline
from hedgerow.edge_agent.telemetry.reconnect import Backoff, VersionChoice
from tests.support.telemetry import profile
from hedgerow.shared.profile import WindowSpec
store = SampleStore(Path(sys.argv[2]), max_bytes=2**24, max_age_s=None)
device = profile("a", window=WindowSpec(length=5, stride=5))
mqtt = MqttTelemetry(BrokerSettings(sys.argv[1], "dev-a", keepalive_s=5), Pipeline(device, store), backoff=Backoff(0.05, 0.2))
mqtt.start()
threading.Event().wait()
"""


@pytest.mark.mosquitto
@pytest.mark.system
def test_an_agent_killed_again_and_again_loses_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    pause = threading.Event()
    root = Path(__file__).parents[3]

    def start(broker: Broker) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", AGENT, broker.url, str(path)], cwd=root, env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [root, *SOURCES]))})  # fmt: skip

    def stored() -> list[float]:
        try:
            store = SampleStore(path, max_bytes=2**24, max_age_s=None, read_only=True)
        except StorageError:
            return []
        try:
            return [float(v) for v in store.read("window").arrays[:, :, 0].ravel()] if store.specs() else []
        finally:
            store.close()

    with running_broker(tmp_path) as broker, Publisher(broker) as sensors:
        process = start(broker)
        # Until the agent has subscribed the broker drops what is published: the first readings are sent until one shows.
        n = 0
        while not stored():
            sensors.publish(n, "s/x", payload(n, a=n % 1000))
            n += 1
            pause.wait(0.02)
        for _ in range(3):
            for _ in range(120):
                sensors.publish(n, "s/x", payload(n, a=n % 1000))
                n += 1
                pause.wait(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start(broker)
        last = n - n % 5
        while n <= last + 5:
            sensors.publish(n, "s/x", payload(n, a=n % 1000))
            n += 1
        assert wait_until(lambda: bool(stored()) and stored()[-1] >= (last - 1) % 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()

    got = stored()
    first = int(got[0])
    assert got == [float(v % 1000) for v in range(first, first + len(got))]
    assert len(got) >= 350


@pytest.mark.mosquitto
def test_a_broker_killed_and_started_without_its_memory_is_joined_again(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker, agent(broker.url, tmp_path) as device:
        with Publisher(broker) as sensors:
            subscribed(broker, device, sensors)
        broker.stop(kill=True)
        assert wait_until(lambda: not device.mqtt.connected)
        broker.start()
        assert wait_until(lambda: device.mqtt.connected)
        with Publisher(broker) as sensors:
            for n in range(500):
                sensors.publish(n, "s/x", payload(n, a=n))
            # The broker knows nobody any more: what it forwards shows that the agent had subscribed again.
            assert wait_until(lambda: len(device.values()) >= 500)


@pytest.mark.mosquitto
def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    need_broker("mosquitto")
    port = free_port()
    device = Agent(f"mqtt://127.0.0.1:{port}", tmp_path)
    device.mqtt.start()
    device.mqtt.publish("up/alarm", b"early")
    assert not device.mqtt.connected
    with Broker(tmp_path / "broker", kind="mosquitto", port=port):
        assert wait_until(lambda: device.mqtt.connected)
        assert device.mqtt.version == "5"
        assert device.mqtt.stop()


def test_stopping_without_a_broker_takes_no_time(tmp_path: Path) -> None:
    device = Agent(f"mqtt://127.0.0.1:{free_port()}", tmp_path)
    device.mqtt.start()

    assert device.mqtt.stop(deadline_s=5.0)


@pytest.mark.mosquitto
def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    need_broker("mosquitto")
    files = TlsFiles(tmp_path / "tls")
    certificate, key = files.client("dev-a")
    port = free_port()
    extra = (
        f"listener {port} 127.0.0.1\nallow_anonymous false\ncafile {files.ca}\ncertfile {files.server_certificate}\n"
        f"keyfile {files.server_key}\nrequire_certificate true\nuse_identity_as_username true\n"
    )
    url = f"mqtts://127.0.0.1:{port}"
    with Broker(tmp_path / "broker", kind="mosquitto", port=port, extra=extra, plain=False):
        with agent(
            url, tmp_path, ca_file=str(files.ca), certificate_file=str(certificate), key_file=str(key)
        ) as device:
            assert device.mqtt.connected
        stranger = TlsFiles(tmp_path / "other")
        (tmp_path / "2").mkdir()
        for settings in (
            {"ca_file": str(files.ca)},
            {"ca_file": str(stranger.ca), "certificate_file": str(certificate), "key_file": str(key)},
        ):
            refused = Agent(url, tmp_path / "2", None, **settings)
            refused.mqtt.start()
            assert not wait_until(lambda device=refused: device.mqtt.connected, 0.5)  # type: ignore[misc]
            assert refused.mqtt.stop()
            refused.store.close()


@pytest.mark.mosquitto
def test_a_refusal_by_the_broker_is_told(tmp_path: Path) -> None:
    need_broker("mosquitto")
    port = free_port()
    extra = f"listener {port} 127.0.0.1\nallow_anonymous false\n"
    with Broker(tmp_path / "broker", kind="mosquitto", port=port, extra=extra, plain=False) as broker:
        with agent(broker.url, tmp_path, username="u", password="wrong") as device:
            assert wait_until(lambda: any(notice.code == "broker-refused" for notice in device.notices))
            assert not device.mqtt.connected


@pytest.mark.mosquitto
def test_another_client_by_the_same_id_is_told(tmp_path: Path) -> None:
    with running_broker(tmp_path) as broker, agent(broker.url, tmp_path) as device:
        intruder = paho.Client(CallbackAPIVersion.VERSION2, client_id="dev-a", protocol=paho.MQTTv5)
        intruder.connect(broker.host, broker.port)
        intruder.loop_start()
        assert wait_until(lambda: any(notice.code in TAKEN_OVER for notice in device.notices))
        intruder.disconnect()
        intruder.loop_stop()


@pytest.mark.mosquitto
def test_oversized_garbage_and_retained_messages_are_counted(tmp_path: Path) -> None:
    source = SourceSpec("s/#", fields={"a": "a"})
    with running_broker(tmp_path) as broker, Publisher(broker) as sensors:
        sensors.publish(0, "s/old", payload(0, a=1), retain=True)
        assert wait_until(lambda: 0 in sensors.acknowledged)
        with agent(broker.url, tmp_path, profile("a", source=source, window=WindowSpec(length=1))) as device:
            assert wait_until(lambda: device.pipeline.status().refused.get("retained") == 1)
            sensors.publish(1, "s/x", b"9" * 70_000)
            sensors.publish(2, "s/x", b"9" * 3_000_000)
            sensors.publish(3, "s/x", b"[" * 60_000)
            sensors.publish(4, "s/x", json.dumps({"t": T0_S, "a": 1}).encode())
            assert wait_until(lambda: device.pipeline.status().readings == 1)
            refused = device.pipeline.status().refused
            # The three megabytes exceed what the agent accepts as a packet: the broker never sends them.
            assert refused == {"retained": 1, "oversized": 1, "too-deep": 1}
            assert device.mqtt.connected


def read_packet(sock: socket.socket) -> tuple[int, bytes]:
    """Return kind and body of one MQTT packet shorter than 16 KiB; kind 0 at the end."""
    file = sock.makefile("rb", buffering=0)
    first = file.read(1)
    if not first:
        return 0, b""
    length = shift = 0
    while True:
        (byte,) = file.read(1) or b"\0"
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    body = b""
    while len(body) < length:
        body += file.read(length - len(body)) or b"\0"
    return first[0] >> 4, body


def subscription_of(sock: socket.socket) -> bytes:
    """Accept the session of MQTT 5 that comes, and return the packet id of its subscription, not yet confirmed."""
    kind, _ = read_packet(sock)
    assert kind == 1
    sock.sendall(b"\x20\x03\x00\x00\x00")
    while kind != 8:
        kind, body = read_packet(sock)
    return body[:2]


def test_connected_means_that_the_subscription_is_confirmed(tmp_path: Path) -> None:
    """A broker that forgot the session drops what is published before it knows the subscription again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = Agent(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", tmp_path)
        device.mqtt.start()
        broker, _ = listener.accept()
        with broker:
            packet = subscription_of(broker)
            assert wait_until(lambda: device.mqtt._accepted)
            assert not device.mqtt.connected

            broker.sendall(b"\x90\x04" + packet + b"\x00\x01")
            assert wait_until(lambda: device.mqtt.connected)
        assert wait_until(lambda: not device.mqtt.connected)
        assert device.mqtt.stop()
        device.store.close()


def test_a_broker_that_never_confirms_the_subscription_is_left_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_module, "_SUBSCRIBED_WITHIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = Agent(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", tmp_path)
        device.mqtt.start()
        for _ in range(2):
            broker, _ = listener.accept()
            with broker:
                subscription_of(broker)
                while (kind := read_packet(broker)[0]) not in (0, 14):
                    pass
                assert kind == 14, "it takes its leave"
        assert not device.mqtt.connected
        assert device.mqtt.stop()
        device.store.close()
