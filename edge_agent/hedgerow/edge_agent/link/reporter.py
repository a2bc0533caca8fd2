"""Tells the server: heartbeats at an interval or when asked, events as soon as the outbox has one."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from hedgerow.edge_agent.clock import LastKnownTime
from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.shared.errors import ContentError, HedgerowError
from hedgerow.shared.messages import EventAck, EventBatch, Heartbeat, HeartbeatAck, TrainerExit

_log = logging.getLogger(__name__)
MAX_TRAINER_EXITS = 16


class Reporter:
    """Sends heartbeats, events and trainer exits over one connection, in a thread of its own.

    Events go in order from the lowest that was not acknowledged; one that the server refuses is put aside as a gap,
    so that it never blocks the rest. ``heartbeat`` is asked for each time and must not block.
    """

    def __init__(
        self,
        client: DeviceClient,
        outbox: Outbox,
        heartbeat: Callable[[], Heartbeat],
        clock: LastKnownTime,
        reconnect: Reconnect,
        *,
        interval_s: float,
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._clock = clock
        self._reconnect = reconnect
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._retry = threading.Event()
        self._stop = threading.Event()
        self._heartbeat_due = 0.0
        self._exits: deque[TrainerExit] = deque(maxlen=MAX_TRAINER_EXITS)
        self._thread = threading.Thread(target=self._run, name="hedgerow-report", daemon=True)
        outbox.on_put = self._wake.set

    def start(self) -> None:
        """Start reporting, with a heartbeat at once."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """End the report under way and the thread. What was not sent stays in the outbox."""
        self._stop.set()
        self._wake.set()
        self._retry.set()
        self._client.interrupt()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def heartbeat_now(self) -> None:
        """Send a heartbeat as soon as may be: the reported state changed."""
        self._heartbeat_due = 0.0
        self._wake.set()

    def retry_now(self) -> None:
        """Do not wait any longer for the next try: the server was heard of."""
        self._retry.set()

    def trainer_exited(self, told: TrainerExit) -> None:
        """Tell the server that a trainer died; forgotten if this agent ends first, as the trainer's node then ends too."""
        self._exits.append(told)
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._report()
            except HedgerowError as error:
                if self._stop.is_set():
                    break
                wait_s = self._reconnect.failed(error)
                level = logging.WARNING if self._reconnect.failures == 1 else logging.DEBUG
                _log.log(level, "report: %s; next try in %.1f s", error, wait_s)
                self._retry.wait(wait_s)
                self._retry.clear()
                continue
            self._reconnect.succeeded()
            self._retry.clear()
            self._wake.wait(max(0.0, self._heartbeat_due - time.monotonic()))
        self._client.close()

    def _report(self) -> None:
        self._send_exits()
        if time.monotonic() >= self._heartbeat_due:
            self._send_heartbeat()
        while not self._stop.is_set() and (batch := self._outbox.batch()).events:
            self._send_events(batch)

    def _send_exits(self) -> None:
        while self._exits:
            told = self._exits[0]
            try:
                self._client.post("/v1/device/trainer-exit", told)
            except ContentError as error:
                _log.warning("report: a trainer's exit is refused: %s", error)
            if self._exits and self._exits[0] is told:
                self._exits.popleft()

    def _send_heartbeat(self) -> None:
        self._heartbeat_due = time.monotonic() + self._interval_s
        try:
            ack = self._client.post("/v1/device/heartbeat", self._heartbeat()).decode(HeartbeatAck)
        except ContentError as error:
            _log.warning("report: a heartbeat is refused: %s", error)
        except HedgerowError:
            self._heartbeat_due = 0.0
            raise
        else:
            self._clock.learn(ack.server_time_us)

    def _send_events(self, batch: EventBatch) -> None:
        try:
            ack = self._client.post("/v1/device/events", batch).decode(EventAck)
        except ContentError as error:
            if len(batch.events) > 1:
                self._send_events(EventBatch(batch.epoch, batch.events[:1]))
                return
            sequence = batch.events[0].sequence
            _log.warning("report: event %d is refused and put aside: %s", sequence, error)
            self._outbox.put_aside(sequence, "refused")
            return
        self._outbox.acknowledged(ack)
