"""The shipped broker configuration, really run: certificates, access lists, sensors' passwords."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.support.broker import TlsFiles, free_port, need_broker
from tests.support.tools import need_program

from hedgerow.simulations.processes.broker import Broker

pytestmark = pytest.mark.mosquitto
SHIPPED = Path(__file__).parents[2] / "firmware_configs" / "mosquitto"
REFUSED = 135


class Gateway:
    """A broker with the shipped files, its ports moved to free ones."""

    def __init__(self, folder: Path) -> None:
        need_broker("mosquitto")
        self.etc, self.var = folder / "etc", folder / "var"
        self.files = TlsFiles(self.etc)
        self.var.mkdir()
        for name in ("acl", "acl-sensors"):
            (self.etc / name).write_text((SHIPPED / name).read_text())
            (self.etc / name).chmod(0o600)
        passwords = self.etc / "passwords"
        program = need_program("mosquitto_passwd")
        for n, (user, password) in enumerate([("heating-node", "warm"), ("agent", "local")]):
            subprocess.run(
                [program, "-b", *(["-c"] if n == 0 else []), str(passwords), user, password], check=True
            )
        self.tls_port, self.plain_port = free_port(), free_port()
        text = (SHIPPED / "mosquitto.conf").read_text()
        text = text.replace("@ETC@", str(self.etc)).replace("@VAR@", str(self.var))
        text = text.replace("listener 8883", f"listener {self.tls_port} 127.0.0.1")
        text = text.replace("listener 1883 127.0.0.1", f"listener {self.plain_port} 127.0.0.1")
        self.broker = Broker(folder / "run", kind="mosquitto", port=self.plain_port, config=text)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(tmp_path_factory.mktemp("gateway"))
    with made.broker:
        yield made


class Client:
    """One connection; ``heard`` are the messages that came."""

    def __init__(self, client_id: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.answers: dict[int, int] = {}
        self.changed = threading.Condition()
        self.connected: int | None = None
        self.cut = threading.Event()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self.paho.on_connect = lambda _c, _d, _f, reason, _p: self._note("connected", reason.value)
        self.paho.on_disconnect = lambda *_: self.cut.set()
        self.paho.on_publish = lambda _c, _d, mid, reason, _p: self._note(mid, reason.value)
        self.paho.on_subscribe = lambda _c, _d, mid, reasons, _p: self._note(mid, reasons[0].value)
        self.paho.on_message = lambda _c, _d, message: self._note(
            "heard", (message.topic, bytes(message.payload))
        )

    def _note(self, what: object, value: object) -> None:
        with self.changed:
            if what == "connected":
                self.connected = value  # type: ignore[assignment]
            elif what == "heard":
                self.heard.append(value)  # type: ignore[arg-type]
            else:
                self.answers[what] = value  # type: ignore[index,assignment]
            self.changed.notify_all()

    def answer(self, mid: int | None) -> int:
        assert mid is not None
        with self.changed:
            assert self.changed.wait_for(lambda: mid in self.answers, 10)
        return self.answers[mid]

    def publish(self, topic: str, payload: bytes = b"1") -> int:
        return self.answer(self.paho.publish(topic, payload, qos=1).mid)

    def subscribe(self, topic: str) -> int:
        return self.answer(self.paho.subscribe(topic, 1)[1])


@contextmanager
def device(gateway: Gateway, name: str, client_id: str | None = None) -> Iterator[Client]:
    client = Client(client_id or name)
    certificate, key = gateway.files.client(name)
    context = ssl.create_default_context(cafile=str(gateway.files.ca))
    context.load_cert_chain(certificate, key)
    client.paho.tls_set_context(context)
    yield from connected(client, gateway.tls_port)


@contextmanager
def sensor(gateway: Gateway, user: str, password: str) -> Iterator[Client]:
    client = Client(user)
    client.paho.username_pw_set(user, password)
    yield from connected(client, gateway.plain_port)


def connected(client: Client, port: int) -> Iterator[Client]:
    client.paho.connect("127.0.0.1", port)
    client.paho.loop_start()
    try:
        with client.changed:
            assert client.changed.wait_for(lambda: client.connected is not None, 10)
        yield client
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


def test_a_device_publishes_as_itself_and_not_as_another(gateway: Gateway) -> None:
    with device(gateway, "collector") as collector, device(gateway, "dev-a") as mine:
        assert collector.subscribe("hedgerow/v1/+/up/#") < 128

        assert mine.publish("hedgerow/v1/dev-b/up/alarm", b"forged") == REFUSED
        assert mine.publish("sensors/pump/x", b"forged") == REFUSED
        assert mine.publish("hedgerow/v1/dev-a/up/alarm", b"mine") < 128

        with collector.changed:
            assert collector.changed.wait_for(lambda: bool(collector.heard), 10)
        assert collector.heard == [("hedgerow/v1/dev-a/up/alarm", b"mine")]


def test_a_device_hears_nothing_of_another(gateway: Gateway) -> None:
    with device(gateway, "dev-a") as mine, device(gateway, "dev-b") as other, device(gateway, "collector"):
        mine.subscribe("hedgerow/v1/+/up/#")
        mine.subscribe("hedgerow/v1/dev-a/down/#")
        other.subscribe("hedgerow/v1/dev-b/down/#")

        assert other.publish("hedgerow/v1/dev-b/up/alarm", b"secret") < 128
        assert other.publish("hedgerow/v1/dev-a/down/cmd", b"forged") == REFUSED
        # What was withheld would have come before the answer to this one.
        mine.publish("hedgerow/v1/dev-a/up/x")

    assert mine.heard == []


def test_another_devices_client_id_does_not_take_its_session(gateway: Gateway) -> None:
    with device(gateway, "dev-b") as victim, device(gateway, "dev-a", client_id="dev-b") as intruder:
        assert intruder.publish("hedgerow/v1/dev-a/up/x") < 128
        assert victim.publish("hedgerow/v1/dev-b/up/still-here") < 128
        assert not victim.cut.is_set()


def test_without_a_certificate_of_the_fleet_nobody_connects(gateway: Gateway, tmp_path: Path) -> None:
    foreign, key = TlsFiles(tmp_path).client("dev-a")
    own, own_key = gateway.files.client("dev-a")
    assert exchange(gateway, own, own_key).startswith(b"\x20")

    for certificate in (None, foreign):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            exchange(gateway, certificate, key)


def exchange(gateway: Gateway, certificate: Path | None, key: Path) -> bytes:
    """Return the broker's answer to a CONNECT (MQTT 3.1.1, section 3.1) over TLS."""
    context = ssl.create_default_context(cafile=str(gateway.files.ca))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    with socket.create_connection(("127.0.0.1", gateway.tls_port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            secured.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05dev-a")
            answer = secured.recv(4)
    if not answer:
        raise ConnectionError("closed")
    return answer


def test_sensors_write_below_their_own_name_with_their_password(gateway: Gateway) -> None:
    with sensor(gateway, "agent", "local") as agent, sensor(gateway, "heating-node", "warm") as node:
        assert agent.subscribe("heating-node/#") < 128

        assert node.publish("other-node/sensor/x/state") == REFUSED
        assert node.publish("heating-node/sensor/flow_temperature/state", b"45.2") < 128

        with agent.changed:
            assert agent.changed.wait_for(lambda: bool(agent.heard), 10)
        assert agent.heard == [("heating-node/sensor/flow_temperature/state", b"45.2")]
    with sensor(gateway, "heating-node", "guessed") as intruder:
        assert intruder.connected is not None
        assert intruder.connected >= 128
