"""Checks of the two ways out of a device: its server over mutual TLS, its broker by a session of its own."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.edge_agent.config import AgentConfig
from hedgerow.edge_agent.doctor.finding import Finding
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.tls import ClockError, device_context
from hedgerow.edge_agent.telemetry.broker import BrokerSettings, broker_settings
from hedgerow.shared.errors import AuthError, ConfigError, HedgerowError

ANSWER_S: Final = 5.0


def check_server(home: AgentHome, config: AgentConfig, timeout_s: float = ANSWER_S) -> Finding:
    """Find whether the server answers this device, asking for its desired state without waiting."""
    name = "server"
    try:
        client = DeviceClient(config.server_url, device_context(home.identity_files()))
        try:
            client.get("/v1/device/desired?revision=-1&wait_s=0", timeout_s=timeout_s)
        finally:
            client.close()
    except ClockError as error:
        return Finding(name, "wrong", str(error), "set the clock")
    except AuthError as error:
        remedy = "was the device revoked, or server_url changed? then: hedgerow agent join TOKEN --again"
        return Finding(name, "wrong", str(error), remedy)
    except HedgerowError as error:
        return Finding(
            name, "wrong", str(error), "is the server up, server_url right, and no firewall between?"
        )
    return Finding(name, "ok", f"{config.server_url} answers this device")


def check_broker(home: AgentHome, config: AgentConfig, timeout_s: float = ANSWER_S) -> Finding:
    """Find whether the broker accepts this device. The session is another than the agent's, which stays as it is."""
    name = "broker"
    try:
        settings = broker_settings(config, home)
        refusal = _try_session(settings, timeout_s)
    except ConfigError as error:
        return Finding(name, "wrong", str(error), "correct [mqtt] in agent.toml")
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(name, "wrong", f"{config.mqtt.url}: {why}", "is the broker up, and mqtt.url right?")
    if refusal:
        remedy = "check user, password and certificate in [mqtt], and the broker's access list"
        return Finding(name, "wrong", f"{config.mqtt.url}: {refusal}", remedy)
    return Finding(name, "ok", f"{config.mqtt.url} accepts this device")


def _try_session(settings: BrokerSettings, timeout_s: float) -> str:
    """Return why the broker refuses a session, nothing if it accepts. Raises OSError if it is not reached."""
    host, port, tls = settings.address()
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"doctor-{secrets.token_hex(4)}",
        clean_session=True,
        protocol=paho.MQTTv311,
    )
    client.connect_timeout = timeout_s
    if tls:
        client.tls_set_context(settings.tls_context())
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    answered = threading.Event()
    answers: list[str] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        answers.append(f"refused: {reason}" if reason.is_failure else "")
        answered.set()

    client.on_connect = on_connect
    client.connect(host, port, keepalive=30)
    client.loop_start()
    try:
        answered.wait(timeout_s)
    finally:
        with contextlib.suppress(OSError):
            client.disconnect()
        client.loop_stop()
    return answers[0] if answers else f"no answer within {timeout_s:g} s; is it an MQTT broker?"
