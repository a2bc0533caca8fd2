"""The MQTT shell: one thread that owns the connection, feeds the pipeline and acknowledges what is committed.

- The session is persistent, so that the broker keeps messages while the device is away.
- A message is acknowledged only after the commit that made it durable; one whose acknowledgement is lost comes again
  and is recognised.
- paho is driven from this thread alone and no lock of ours is held around it; other threads hand over publications.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hedgerow.edge_agent.telemetry.broker import BrokerSettings
from hedgerow.edge_agent.telemetry.pipeline import Pipeline
from hedgerow.edge_agent.telemetry.reconnect import Backoff, VersionChoice
from hedgerow.shared.messages import Notice

log = logging.getLogger(__name__)
LINGER_S: Final = 0.005
MAX_WAITING_PUBLICATIONS: Final = 1000
RECEIVE_MAXIMUM: Final = 100
MAX_PACKET_BYTES: Final = 1024 * 1024
_SEND_WINDOW: Final = 20
_IDLE_S: Final = 5.0
_TAKEN_OVER: Final = 0x8E
_VERSION_REFUSED: Final = 0x84
_SUBSCRIBED_WITHIN_S: Final = 30.0


class MqttTelemetry:
    """Keeps the session with the broker until stopped, across outages of any length."""

    def __init__(
        self,
        settings: BrokerSettings,
        pipeline: Pipeline,
        *,
        on_notice: Callable[[Notice], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._host, self._port, self._tls = settings.address()
        self._context = settings.tls_context() if self._tls else None
        self._pipeline = pipeline
        self._on_notice = on_notice
        self._backoff = backoff or Backoff()
        self._choice = VersionChoice()
        self._client: paho.Client | None = None
        self._client_version = ""
        self._renewed = threading.Event()
        self._unacknowledged: list[tuple[int, int]] = []
        self._outgoing: deque[tuple[str, bytes, bool]] = deque(maxlen=MAX_WAITING_PUBLICATIONS)
        self._in_flight = 0
        self._accepted = False
        self._subscribed = False
        self._accepted_at = 0.0
        self._answer_by = 0.0
        self._refused_for_long = False
        self._stop = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="hedgerow-telemetry", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the connection stands and the broker has confirmed the subscriptions.

        Not sooner: a broker that has forgotten the session drops what is published before it knows them again.
        """
        return self._subscribed

    @property
    def version(self) -> str:
        """The version of MQTT in use or tried next: ``5`` or ``3.1.1``."""
        return self._choice.version

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline_s: float = 5.0) -> bool:
        """Commit and acknowledge what is there, leave the broker, and return whether that took less than the deadline."""
        self._stop.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def publish(self, suffix: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a result below the topic prefix with QoS 1; from any thread. Beyond the bound the oldest are dropped."""
        self._outgoing.append((f"{self._settings.topic_prefix}/{suffix}", payload, retain))
        self._wake()

    def identity_renewed(self) -> None:
        """Present the certificate that is on disk now, from the next session on; from any thread."""
        self._renewed.set()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._guarded_session()
                self._accepted = self._subscribed = False
                self._unacknowledged.clear()
                self._pipeline.commit()
                if not self._stop.is_set():
                    self._stop.wait(self._backoff.wait_s(longest=self._refused_for_long))
        finally:
            self._pipeline.commit()
            self._wake_reader.close()
            self._wake_writer.close()

    def _guarded_session(self) -> None:
        try:
            self._session()
        except Exception as error:  # the thread's boundary: telemetry goes on with a new client
            log.exception("telemetry failed")
            self._client, self._refused_for_long = None, True
            self._tell("telemetry-failed", f"{type(error).__name__}: {error}")

    def _session(self) -> None:
        """Hold one connection from its opening to its end."""
        client = self._client_for(self._choice.version)
        self._accepted = self._subscribed = self._refused_for_long = False
        try:
            self._connect(client)
        except (OSError, ValueError) as error:
            log.info("broker %s:%d not reached: %s", self._host, self._port, error)
            return
        self._pump(client)
        if self._stop.is_set():
            return
        if self._accepted:
            self._backoff.ended(time.monotonic() - self._accepted_at)
            if self._backoff.unsteady:
                # Some brokers do not say that another client took the session over: then both take turns.
                self._refused_for_long = True
                self._tell(
                    "broker-unsteady",
                    f"the broker keeps ending the session; does another client use the id {self._settings.client_id!r}?",
                )
        elif not self._refused_for_long:
            self._choice.unanswered()
            log.info("broker gave no session; trying MQTT %s next", self._choice.version)

    def _connect(self, client: paho.Client) -> None:
        if self._client_version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = self._settings.session_expiry_s
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            client.connect(
                self._host, self._port, self._settings.keepalive_s, clean_start=False, properties=properties
            )
        else:
            client.connect(self._host, self._port, self._settings.keepalive_s)

    def _pump(self, client: paho.Client) -> None:
        self._answer_by = time.monotonic() + self._choice.answer_within_s
        leaving = False
        while (sock := client.socket()) is not None:
            if self._stop.is_set() and not leaving:
                leaving = True
                self._commit(client)
                client.disconnect()
                continue
            if not self._subscribed and time.monotonic() > self._answer_by:
                client.disconnect()
                return
            readable = self._wait(client, sock, self._patience_s())
            if readable and client.loop_read() != paho.MQTT_ERR_SUCCESS:
                return
            if client.want_write():
                client.loop_write()
            client.loop_misc()
            self._send(client)
            if self._pipeline.pending and (not readable or self._pipeline.due_in_s() == 0.0):
                self._commit(client)

    def _patience_s(self) -> float:
        due_s = self._pipeline.due_in_s()
        if due_s is not None:
            return min(LINGER_S, due_s)
        return _IDLE_S if self._accepted else 0.5

    def _wait(self, client: paho.Client, sock: Any, timeout_s: float) -> bool:
        """Return whether the socket has something to read, as soon as anything happens."""
        # TLS may hold decrypted bytes that select cannot see.
        if hasattr(sock, "pending") and sock.pending():
            return True
        writers = [sock] if client.want_write() else []
        ready, _, _ = select.select([sock, self._wake_reader], writers, [], timeout_s)
        if self._wake_reader in ready:
            with contextlib.suppress(BlockingIOError):
                while self._wake_reader.recv(4096):
                    pass
        return sock in ready

    def _commit(self, client: paho.Client) -> None:
        self._pipeline.commit()
        done, self._unacknowledged = self._unacknowledged, []
        for packet, qos in done:
            client.ack(packet, qos)

    def _send(self, client: paho.Client) -> None:
        while self._accepted and self._outgoing and self._in_flight < _SEND_WINDOW:
            topic, payload, retain = self._outgoing.popleft()
            self._in_flight += 1
            client.publish(topic, payload, qos=1, retain=retain)

    def _client_for(self, version: str) -> paho.Client:
        """Return the client for a version; one is kept, because it holds what is still to be confirmed."""
        if self._renewed.is_set():
            # paho takes a TLS context only once: a new client, and what the old one had not confirmed is let go.
            self._renewed.clear()
            self._client = None
            self._context = self._settings.tls_context() if self._tls else None
        if self._client is not None and self._client_version == version:
            return self._client
        self._in_flight = 0
        self._client_version = version
        self._client = self._make_client(version)
        return self._client

    def _make_client(self, version: str) -> paho.Client:
        five = version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id,
            clean_session=None if five else False,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            manual_ack=True,
        )
        client.max_inflight_messages_set(_SEND_WINDOW)
        if self._context is not None:
            client.tls_set_context(self._context)
        if self._settings.username is not None:
            client.username_pw_set(self._settings.username, self._settings.password)
        client.will_set(f"{self._settings.topic_prefix}/up/status", b'{"online":false}', qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: paho.ConnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._refused_for_long = reason.value != _VERSION_REFUSED
            if self._refused_for_long:
                self._tell("broker-refused", f"the broker refuses this device: {reason}")
            client.disconnect()
            return
        self._accepted = True
        self._choice.accepted()
        self._accepted_at = time.monotonic()
        self._answer_by = self._accepted_at + _SUBSCRIBED_WITHIN_S
        if self._pipeline.topics:
            client.subscribe([(topic, qos) for topic, qos in self._pipeline.topics])
        else:
            self._subscribed = True
        client.publish(f"{self._settings.topic_prefix}/up/status", b'{"online":true}', qos=0, retain=True)
        log.info("broker %s:%d accepted the session, MQTT %s", self._host, self._port, self._client_version)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: Any,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Any,
    ) -> None:
        if reason.value == _TAKEN_OVER:
            self._refused_for_long = True
            self._tell("broker-taken-over", f"another client uses the id {self._settings.client_id!r}")

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        for (topic, _), reason in zip(self._pipeline.topics, reasons, strict=False):
            if reason.is_failure:
                self._tell("subscription-refused", f"the broker refuses topic {topic!r}: {reason}")
        self._subscribed = True

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self._pipeline.on_message(
            message.topic,
            bytes(message.payload),
            time.time_ns() // 1000,
            packet=message.mid if message.qos else None,
            redelivery=message.dup,
            retained=message.retain,
        )
        if message.qos:
            self._unacknowledged.append((message.mid, message.qos))

    def _on_publish(
        self, _client: paho.Client, _data: Any, _mid: int, _reason: ReasonCode, _properties: Any
    ) -> None:
        self._in_flight = max(0, self._in_flight - 1)

    def _tell(self, code: str, text: str) -> None:
        log.warning("%s: %s", code, text)
        if self._on_notice is not None:
            self._on_notice(Notice(code, text[:1000]))
