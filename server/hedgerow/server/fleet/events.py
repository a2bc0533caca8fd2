"""Events from the devices' outboxes: each kept once, acknowledged cumulatively after the commit, bounded in number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from hedgerow.server.bus import Bus
from hedgerow.server.fleet.counting import Counted, count_batch
from hedgerow.server.fleet.tables import EventMarkRow, EventRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import Event, EventAck, EventBatch, GapRecord, Severity, decode

MAX_EPOCHS_PER_DEVICE = 64


class StoredEvent(msgspec.Struct, frozen=True):
    """An event with where it came from; ``id`` grows in the order of arrival."""

    id: int
    device: str
    received_at: datetime
    event: Event


class Events:
    """Takes batches and answers with cumulative acknowledgements. Idempotent by (device, epoch, sequence).

    At most ``max_events`` are kept, and ``max_per_device`` of one device, the oldest go first; the marks stay, so that
    what was dropped here is not taken again. Publishes ``event.received`` for each new event, after the commit.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        max_events: int = 500_000,
        max_per_device: int = 20_000,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._bus = bus
        self._max_events = max_events
        self._max_per_device = max_per_device
        self._now = now
        self._one_writer = asyncio.Lock()

    async def receive(self, device: str, batch: EventBatch) -> EventAck:
        """Keep what is new of ``batch`` and return up to where everything is here.

        Raises ContentError if an event is too large, out of bounds, or the batch not contiguous.
        """
        check_batch(batch)
        async with self._one_writer:
            counted, stored = await asyncio.to_thread(self._store, device, batch)
        for kept in stored:
            self._bus.publish(
                "event.received",
                device=device,
                id=kept.id,
                sequence=kept.event.sequence,
                at_us=kept.event.at_us,
                severity=kept.event.severity,
                body=kept.event.body,
            )
        return EventAck(batch.epoch, counted.up_to)

    def latest(
        self,
        *,
        device: str | None = None,
        severity: Severity | None = None,
        kind: str | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[StoredEvent]:
        """Return the newest events first; ``before_id`` pages on. ``kind`` is a body's tag (``alarm``, ``gap``, …)."""
        query = select(EventRow).order_by(EventRow.id.desc()).limit(max(1, min(limit, 1000)))
        wanted: dict[Any, Any] = {EventRow.device: device, EventRow.severity: severity, EventRow.kind: kind}
        for column, value in wanted.items():
            if value is not None:
                query = query.where(column == value)
        if before_id is not None:
            query = query.where(EventRow.id < before_id)
        with self._database.transaction() as session:
            return [_stored(row) for row in session.scalars(query)]

    def prune(self) -> int:
        """Delete what is over the bounds; return how many events that were. Blocks on the disk."""
        with self._database.transaction() as session:
            crowded = session.execute(
                select(EventRow.device).group_by(EventRow.device).having(func.count() > self._max_per_device)
            ).scalars()
            gone = sum(self._drop_oldest(session, device, self._max_per_device) for device in list(crowded))
            return gone + self._drop_oldest(session, None, self._max_events)

    def _store(self, device: str, batch: EventBatch) -> tuple[Counted, list[StoredEvent]]:
        with self._database.transaction() as session:
            mark = session.get(EventMarkRow, (device, batch.epoch))
            if mark is None:
                self._forget_old_epochs(session, device)
                mark = EventMarkRow(device=device, epoch=batch.epoch, up_to=0)
                session.add(mark)
            counted = count_batch(batch.events, mark.up_to)
            events = list(counted.new)
            if counted.missing is not None:
                events.insert(0, _gap_seen_here(*counted.missing, events[0].at_us))
            rows = [_row(device, batch.epoch, event, self._now()) for event in events]
            session.add_all(rows)
            mark.up_to = counted.up_to
            session.flush()
            return counted, [_stored(row) for row in rows]

    def _forget_old_epochs(self, session: Session, device: str) -> None:
        # A device has one outbox; only one that makes up epochs comes here.
        marks = session.scalars(select(EventMarkRow).where(EventMarkRow.device == device)).all()
        if len(marks) >= MAX_EPOCHS_PER_DEVICE:
            raise ContentError(f"epoch: this device started {len(marks)} outboxes already; ask the operator")

    def _drop_oldest(self, session: Session, device: str | None, keep: int) -> int:
        ids = select(EventRow.id).order_by(EventRow.id.desc())
        doomed = delete(EventRow)
        if device is not None:
            ids = ids.where(EventRow.device == device)
            doomed = doomed.where(EventRow.device == device)
        newest_to_drop = session.scalar(ids.offset(keep).limit(1))
        if newest_to_drop is None:
            return 0
        result: Any = session.execute(doomed.where(EventRow.id <= newest_to_drop))
        return int(result.rowcount)


def check_batch(batch: EventBatch) -> None:
    """Refuse events that are too large. Raises ContentError naming the event."""
    for event in batch.events:
        size = len(msgspec.json.encode(event))
        if size > limits.MAX_EVENT_BYTES:
            raise ContentError(f"event {event.sequence}: {size} bytes, more than {limits.MAX_EVENT_BYTES}")


def _gap_seen_here(first: int, last: int, at_us: int) -> Event:
    return Event(last, at_us, "warning", GapRecord(first, last, "lost-between"))


def _row(device: str, epoch: str, event: Event, received_at: datetime) -> EventRow:
    return EventRow(
        device=device,
        epoch=epoch,
        sequence=event.sequence,
        at_us=event.at_us,
        received_at=received_at,
        severity=event.severity,
        kind=str(event.body.__struct_config__.tag),
        body=msgspec.json.encode(event),
    )


def _stored(row: EventRow) -> StoredEvent:
    return StoredEvent(row.id, row.device, row.received_at, decode(row.body, Event))
