"""The latest heartbeat of each device: in memory at once, on disk now and then, so that a fleet never hammers it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from hedgerow.server.bus import Bus
from hedgerow.server.fleet.tables import HeartbeatRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import Heartbeat, decode

MAX_REPORTED_ITEMS = 64
_BIGGEST = 2**63 - 1


class Seen(msgspec.Struct, frozen=True):
    """A device's latest heartbeat and when it came."""

    heartbeat: Heartbeat
    received_at: datetime
    received_s: float


class Heartbeats:
    """Records heartbeats. ``record`` and the readers are cheap and safe from any thread; ``flush`` blocks on the disk."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._bus = bus
        self._now = now
        self._clock = clock
        self._latest: dict[str, Seen] = {}
        self._unwritten: set[str] = set()
        self._flushing = threading.Lock()

    def load(self) -> None:
        """Read what was written down; once, at start. Such a heartbeat counts as infinitely old."""
        with self._database.transaction() as session:
            rows = session.scalars(select(HeartbeatRow)).all()
        for row in rows:
            heartbeat = decode(row.document, Heartbeat)
            self._latest[row.device] = Seen(heartbeat, row.received_at, float("-inf"))

    def record(self, device: str, heartbeat: Heartbeat) -> None:
        """Keep a heartbeat and publish ``device.heartbeat``, and ``device.reported`` if its state changed.

        Raises ContentError if a count in it is out of bounds.
        """
        check_heartbeat(heartbeat)
        before = self._latest.get(device)
        self._latest[device] = Seen(heartbeat, self._now(), self._clock())
        self._unwritten.add(device)
        self._bus.publish("device.heartbeat", device=device, heartbeat=heartbeat)
        if heartbeat.state is not None and (before is None or before.heartbeat.state != heartbeat.state):
            self._bus.publish("device.reported", device=device, state=heartbeat.state)

    def get(self, device: str) -> Seen | None:
        """Return the latest heartbeat of a device, or None if none ever came."""
        return self._latest.get(device)

    def all(self) -> dict[str, Seen]:
        """Return the latest heartbeat of every device."""
        return dict(self._latest)

    def age_s(self, device: str) -> float:
        """Return the seconds since the device's latest heartbeat to this process; infinite if there was none."""
        seen = self._latest.get(device)
        return float("inf") if seen is None else self._clock() - seen.received_s

    def forget(self, device: str) -> None:
        """Drop what is known of a device."""
        self._latest.pop(device, None)
        self._unwritten.discard(device)
        with self._database.transaction() as session:
            session.execute(delete(HeartbeatRow).where(HeartbeatRow.device == device))

    def flush(self) -> int:
        """Write down what came since the last flush, in one transaction; return how many devices that were.

        What cannot be written is tried again with the next flush.
        """
        with self._flushing:
            names = list(self._unwritten)
            self._unwritten.difference_update(names)
            try:
                return self._write({name: self._latest[name] for name in names if name in self._latest})
            except SQLAlchemyError:
                self._unwritten.update(names)
                raise

    def _write(self, seen: dict[str, Seen]) -> int:
        rows = [
            {"device": name, "received_at": s.received_at, "document": msgspec.json.encode(s.heartbeat)}
            for name, s in seen.items()
        ]
        if not rows:
            return 0
        names = list(seen)
        with self._database.transaction() as session:
            for start in range(0, len(names), 500):
                session.execute(
                    delete(HeartbeatRow).where(HeartbeatRow.device.in_(names[start : start + 500]))
                )
            session.execute(insert(HeartbeatRow), rows)
        return len(rows)


def check_heartbeat(heartbeat: Heartbeat) -> None:
    """Refuse counts that no device has. Raises ContentError naming the field."""
    _check_counts(heartbeat, "heartbeat")
    latency = heartbeat.latency
    if latency is not None and (
        len(latency.bounds_us) > MAX_REPORTED_ITEMS or len(latency.counts) != len(latency.bounds_us) + 1
    ):
        raise ContentError(
            f"heartbeat.latency: at most {MAX_REPORTED_ITEMS} bounds, and one count more than there are bounds"
        )
    if latency is not None and not all(0 <= n <= _BIGGEST for n in (*latency.bounds_us, *latency.counts)):
        raise ContentError(f"heartbeat.latency: bounds and counts must lie between 0 and {_BIGGEST}")
    state = heartbeat.state
    if state is not None and max(len(state.bundles), len(state.recipes)) > MAX_REPORTED_ITEMS:
        raise ContentError(f"heartbeat.state: at most {MAX_REPORTED_ITEMS} bundles and recipes")
    if state is not None:
        _check_counts(state, "heartbeat.state")
        for n, bundle in enumerate(state.bundles):
            _check_counts(bundle, f"heartbeat.state.bundles[{n}]")


def _check_counts(part: msgspec.Struct, where: str) -> None:
    for name in part.__struct_fields__:
        value = getattr(part, name)
        low = -1 if name == "revision" else 0  # -1: no desired state was fetched yet
        if isinstance(value, int) and not low <= value <= _BIGGEST:
            raise ContentError(f"{where}.{name}: must lie between {low} and {_BIGGEST}")
