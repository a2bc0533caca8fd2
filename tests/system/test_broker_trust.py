"""mosquitto with the fleet's CA and revocation list: devices get in, strangers and the revoked do not."""

from __future__ import annotations

import queue
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.support.fleet import running_fleet
from tests.support.tools import need_program

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.server.pki.authority import CertificateAuthority

pytestmark = [pytest.mark.system, pytest.mark.mosquitto]


@contextmanager
def broker(folder: Path, authority: CertificateAuthority) -> Iterator[int]:
    program = need_program("mosquitto")
    pair = authority.server_pair(name="hedgerow-broker")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Started by root, mosquitto would become a user who cannot read the test's files; otherwise the setting is ignored.
    settings = {
        "listener": f"{port} 127.0.0.1",
        "allow_anonymous": "false",
        "cafile": authority.folder / "ca.pem",
        "certfile": pair.certificate,
        "keyfile": pair.key,
        "crlfile": authority.folder / "crl.pem",
        "require_certificate": "true",
        "use_identity_as_username": "true",
        "tls_version": "tlsv1.3",
        "user": "root",
    }
    (folder / "mosquitto.conf").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with (folder / "broker.log").open("wb") as log:
        child = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        wait_for(port)
        yield port
    finally:
        child.terminate()
        child.wait(10)


def wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, "the broker does not listen"
            time.sleep(0.02)


def connects(port: int, context: ssl.SSLContext) -> bool:
    """Tell whether the broker says CONNACK; a refused certificate ends the connection instead."""
    said: queue.Queue[bool] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="c", protocol=mqtt.MQTTv5)
    context.check_hostname = False  # the broker is reached by its address
    client.tls_set_context(context)

    def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        said.put(not reason.is_failure)

    def lost(*_: Any) -> None:
        said.put(False)

    client.on_connect, client.on_disconnect, client.on_connect_fail = connected, lost, lost
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    try:
        return said.get(timeout=60)
    finally:
        client.disconnect()
        client.loop_stop()


def context_of(home: AgentHome) -> ssl.SSLContext:
    return device_context(home.identity_files())


def test_broker_trusts_devices_of_the_fleet_until_they_are_revoked(tmp_path: Path) -> None:
    with running_fleet(tmp_path, 2) as (server, (stays, goes)):
        with broker(tmp_path, server.authority) as port:
            assert connects(port, context_of(stays)) and connects(port, context_of(goes))
            stranger = ssl.create_default_context(cadata=server.authority.pem)
            assert not connects(port, stranger)
        server.fleet.devices.revoke("device-1", "stolen")
        with broker(tmp_path, server.authority) as port:
            assert connects(port, context_of(stays))
            assert not connects(port, context_of(goes))
