"""Sensors that publish over MQTT faster than real time: simulated pumps, or recordings row by row.

Each sensor's clock is in its payloads, one row a second from a common start, so that a device sees what it would see
in real time. Labels of a recording stay here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.models.pump.faults import Fault
from hedgerow.models.pump.machine import Machine, draw_machine
from hedgerow.shared.errors import ConfigError, TransportError
from hedgerow.shared.profile import DeviceProfile, SourceSpec
from hedgerow.simulations.bench.skab_files import Recording

START: Final = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)
Rows = npt.NDArray[np.float64]
_IN_FLIGHT: Final = 200
_PUBLISH_S: Final = 60.0


class Sensor(Protocol):
    """A source of rows in order of time."""

    @property
    def row(self) -> int:
        """Rows given so far."""

    def rows(self, count: int) -> Rows:
        """Return at most the next ``count`` rows ``(n, channels)``; fewer when the recording ends."""


class RecordedSensor:
    """Replays one recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.row = 0

    def rows(self, count: int) -> Rows:
        """Return at most the next ``count`` rows."""
        found = self.recording.rows[self.row : self.row + count].astype(np.float64)
        self.row += len(found)
        return found


class SimulatedSensor:
    """One simulated pump; a fault can be put into its future."""

    def __init__(self, number: int, seed: int) -> None:
        self.machine = Machine(draw_machine(1000 * seed + number), 1000 * seed + number)

    @property
    def row(self) -> int:
        """Rows made so far."""
        return self.machine.row

    def rows(self, count: int) -> Rows:
        """Return the next ``count`` rows."""
        return self.machine.rows(count)

    def inject(self, fault: Fault, in_rows: int) -> int:
        """Let ``fault`` begin ``in_rows`` rows from now; return the row at which it begins."""
        start = self.machine.row + in_rows
        self.machine.inject(fault.at(start))
        return start


def time_of(row: int) -> datetime:
    """Return when a row was measured, by the sensors' clock."""
    return START + timedelta(seconds=row)


def row_of(at_us: int) -> int:
    """Return the row that was measured at a time of the sensors' clock."""
    return round((datetime.fromtimestamp(at_us / 1e6, UTC) - START).total_seconds())


def payload(profile: DeviceProfile, source: SourceSpec, at: datetime, row: npt.NDArray[np.float64]) -> bytes:
    """Return one row as the JSON object that the profile's mapping reads. Raises ConfigError for another mapping."""
    if source.payload != "object" or source.timestamp is None:
        raise ConfigError(f"profile {profile.name!r}: the demo publishes objects with a timestamp only")
    body: dict[str, Any] = {}
    _put(body, source.timestamp, at.isoformat())
    for name, value in zip(profile.channels, row, strict=True):
        if name in source.fields:
            _put(body, source.fields[name], round(float(value), 6))
    return json.dumps(body).encode()


class Publisher:
    """One MQTT connection for all sensors, and for what devices publish."""

    def __init__(self, host: str, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-sensors")
        self._client.max_inflight_messages_set(_IN_FLIGHT)
        self._client.connect(host, port)
        self._client.loop_start()
        self.heard: list[tuple[str, bytes]] = []

    def listen(self, topics: str) -> None:
        """Keep what devices publish under ``topics`` in ``heard``, in order."""
        self._client.on_message = lambda _c, _u, message: self.heard.append(
            (message.topic, bytes(message.payload))
        )
        self._client.subscribe(topics, qos=1)

    def publish(self, profile: DeviceProfile, device: str, first_row: int, rows: Rows) -> None:
        """Publish rows in order with QoS 1 and return when the broker has them. Raises TransportError if it stops."""
        source = profile.source[0]
        topic = source.topic.replace("{device}", device)
        last = None
        for n, row in enumerate(rows):
            last = self._client.publish(topic, payload(profile, source, time_of(first_row + n), row), qos=1)
        if last is None:
            return
        try:
            last.wait_for_publish(_PUBLISH_S)
        except (RuntimeError, ValueError) as error:
            raise TransportError(f"the broker took no reading of {device}: {error}") from error
        if not last.is_published():
            raise TransportError(f"the broker took no reading of {device} within {_PUBLISH_S:.0f} s")

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def publishing(host: str, port: int) -> Iterator[Publisher]:
    """Yield a publisher and close it."""
    publisher = Publisher(host, port)
    try:
        yield publisher
    finally:
        publisher.close()


def _put(body: dict[str, Any], path: str, value: object) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        body = body.setdefault(folder, {})
    body[name] = value


def write_images(
    folder: Path, device: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> Path:
    """Write a device's labelled images as the archive that ``hedgerow agent ingest`` reads, and return its path."""
    path = folder / f"{device}-images.npz"
    np.savez(path, x=images, y=labels)
    return path
