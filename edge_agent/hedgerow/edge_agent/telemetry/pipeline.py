"""The telemetry of one device, composed: a message becomes rows, windows, stored samples and calls for inference.

It does no input of its own and is used from one thread; the MQTT shell and tests feed it. Messages gather in memory and
are committed together; a message may be acknowledged once a ``commit`` after it has returned.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from hedgerow.edge_agent.samples.schema import DamagedError
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.telemetry.clock import clock_trusted, judge_times
from hedgerow.edge_agent.telemetry.journal import Journal
from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.edge_agent.telemetry.quarantine import Quarantine
from hedgerow.edge_agent.telemetry.reading import Refusal, Row
from hedgerow.edge_agent.telemetry.stream import RowStream
from hedgerow.edge_agent.telemetry.windower import Window
from hedgerow.shared.errors import StorageError
from hedgerow.shared.messages import Notice
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.specs import Sample
from hedgerow.shared.topics import matches

log = logging.getLogger(__name__)
COMMIT_MESSAGES: Final = 50
COMMIT_AFTER_S: Final = 0.1
MAX_UNSTORED_BYTES: Final = 4 * 1024 * 1024
_WAVE_MESSAGES: Final = 100
_WAVE_STARTS: Final = 0.10
_WAVE_ENDS: Final = 0.05


class TelemetryStatus(msgspec.Struct, frozen=True):
    """Counters since start: all that came, what was used, what was refused by reason, what became of it."""

    messages: int
    readings: int
    refused: dict[str, int]
    quarantined: int
    stream: dict[str, int]
    samples: int
    unstored: int
    unscored: int
    storing: bool
    clock_ok: bool
    messages_before_clock_set: int


class Pipeline:
    """``on_window`` gets each new window after the commit that stored it, ``on_notice`` what a person should know.

    A full disk stops neither: windows still go to inference, wait in memory (bounded) for the disk, and are counted
    as ``unstored`` where that bound is reached. A damaged store is moved aside and a fresh one started.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        store: SampleStore,
        *,
        on_window: Callable[[Sample], None] | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._profile = profile
        self._store = store
        self._on_window = on_window
        self._on_notice = on_notice
        self._now_us = now_us
        self._mappings = [Mapping(source, profile.channels) for source in profile.source]
        self._stream = RowStream(profile)
        self._feature_set = feature_set(profile)
        self._quarantine = Quarantine()
        self._journal = Journal(_identity(profile))
        self._unsaid: list[Sample] = []
        self._unstored: deque[Sample] = deque()
        self._unstored_bytes = 0
        self._counts: Counter[str] = Counter()
        self._wave: deque[bool] = deque(maxlen=_WAVE_MESSAGES)
        self._in_wave = False
        self._last_fault = ""
        self._storing = True
        self._clock_ok = True
        self._pending = 0
        self._since = 0.0
        if profile.channel:  # a device of cameras alone has no window
            store.declare(profile.window_spec)
        store.on_reset(Quarantine.prepare)
        store.on_reset(self._journal.prepare)
        with store.connection() as connection:
            restored = self._journal.restore(connection, self._stream)
        log.info("telemetry of profile %s resumes with %d rows", profile.name, restored)

    @property
    def topics(self) -> list[tuple[str, int]]:
        """Topic filters to subscribe to, each with its quality of service."""
        return [(source.topic, source.qos) for source in self._profile.source]

    @property
    def pending(self) -> int:
        """Messages taken since the last commit."""
        return self._pending

    def due_in_s(self) -> float | None:
        """Return the seconds until a commit is due, 0 if it is, None if nothing waits."""
        if not self._pending:
            return None
        if self._pending >= COMMIT_MESSAGES:
            return 0.0
        return max(0.0, self._since + COMMIT_AFTER_S - time.monotonic())

    def status(self) -> TelemetryStatus:
        """Return the counters."""
        return TelemetryStatus(
            messages=self._counts["messages"],
            readings=self._counts["readings"],
            refused=dict(self._quarantine.counts),
            quarantined=self._counts["quarantined"],
            stream=dict(self._stream.counts),
            samples=self._counts["samples"],
            unstored=self._counts["unstored"],
            unscored=self._counts["unscored"],
            storing=self._storing,
            clock_ok=self._clock_ok,
            messages_before_clock_set=self._counts["before-clock-set"],
        )

    def on_message(
        self,
        topic: str,
        payload: bytes,
        arrived_us: int,
        *,
        packet: int | None = None,
        redelivery: bool = False,
        retained: bool = False,
    ) -> None:
        """Take one message; nothing that a broker may send raises.

        ``packet`` is its MQTT packet id, ``redelivery`` the broker's duplicate flag; with both, a message that was
        committed before is not used again. A ``retained`` message counts only where its payload has a time: when it
        was measured is not known otherwise.
        """
        if not self._pending:
            self._since = time.monotonic()
        self._pending += 1
        self._counts["messages"] += 1
        if packet is not None:
            if redelivery and self._journal.redelivered(packet, topic, payload):
                self._quarantine.take(topic, payload, [Refusal("redelivered")], arrived_us)
                return
            self._journal.delivered(packet, topic, payload)
        rows, refusals = self._decode(topic, payload, arrived_us, retained)
        fed = self._stream.feed(rows)
        refusals += fed.refusals
        self._counts["readings"] += sum(len(row.values) for row in fed.used)
        self._journal.follow(fed, self._stream)
        bad = self._quarantine.take(topic, payload, refusals, arrived_us) if refusals else False
        if bad:
            self._last_fault = refusals[0].reason
        self._watch_quarantine(bad)
        self._gather(fed.windows)

    def commit(self) -> None:
        """Store what has gathered in one transaction, then hand the new windows to ``on_window``."""
        if not self._pending:
            return
        self._pending = 0
        try:
            self._store_gathered()
        except StorageError as error:
            self._set_storing(False, str(error))
        else:
            self._set_storing(True, "")
        said, self._unsaid = self._unsaid, []
        for sample in said:
            self._say(sample)

    def _store_gathered(self) -> None:
        try:
            added = self._store.add(list(self._unstored), also=self._write)
        except DamagedError as error:
            log.error("%s", error)
            self._replace_store()
            added = self._store.add(list(self._unstored), also=self._write)
        self._counts["samples"] += added
        self._unstored.clear()
        self._unstored_bytes = 0
        self._journal.written()
        self._quarantine.written()

    def _say(self, sample: Sample) -> None:
        if self._on_window is None:
            return
        try:
            self._on_window(sample)
        except Exception:  # inference is another part: its failure must not stop telemetry
            self._counts["unscored"] += 1
            log.exception("a window could not be scored")

    def _write(self, connection: sqlite3.Connection) -> None:
        self._quarantine.write(connection)
        self._journal.write(connection)

    def _decode(
        self, topic: str, payload: bytes, arrived_us: int, retained: bool
    ) -> tuple[list[Row], list[Refusal]]:
        mapping = next((m for m in self._mappings if matches(m.source.topic, topic)), None)
        if mapping is None:
            return [], [Refusal("unknown-topic", "no source of the profile matches it")]
        dated = mapping.source.timestamp is not None
        if retained and not dated:
            return [], [Refusal("retained", "a retained message without a time")]
        decoded = mapping.decode(payload, arrived_us)
        now_us = self._now_us()
        rows, refused = judge_times(decoded.rows, dated, now_us, self._profile.clock)
        self._watch_clock(clock_trusted(now_us, self._profile.clock))
        return rows, [*decoded.refusals, *refused]

    def _watch_clock(self, trusted: bool) -> None:
        self._counts["before-clock-set"] += not trusted
        if trusted == self._clock_ok:
            return
        self._clock_ok = trusted
        if trusted:
            self._notify("clock-set", "the device's clock is set again")
        else:
            year = datetime.fromtimestamp(self._profile.clock.trusted_after_s, UTC).year
            self._notify(
                "clock-not-set",
                f"the device's clock stands before {year}: it has not been set since the boot",
            )

    def _gather(self, windows: tuple[Window, ...]) -> None:
        for window in windows:
            sample = as_sample(window, self._profile.window.name, self._feature_set)
            self._unsaid.append(sample)
            self._unstored.append(sample)
            self._unstored_bytes += window.array.nbytes
        while self._unstored_bytes > MAX_UNSTORED_BYTES and not self._storing:
            self._unstored_bytes -= self._unstored.popleft().array.nbytes
            self._counts["unstored"] += 1

    def _watch_quarantine(self, bad: bool) -> None:
        self._counts["quarantined"] += bad
        self._wave.append(bad)
        if len(self._wave) < _WAVE_MESSAGES and not self._in_wave:
            return
        share = sum(self._wave) / len(self._wave)
        if not self._in_wave and share >= _WAVE_STARTS:
            self._in_wave = True
            self._notify(
                "quarantine-wave",
                f"{share:.0%} of the last messages are quarantined, the last one for: {self._last_fault}",
            )
        elif self._in_wave and share <= _WAVE_ENDS:
            self._in_wave = False

    def _replace_store(self) -> None:
        try:
            moved = self._store.start_anew()
        except OSError as error:
            raise StorageError(f"the damaged sample store could not be replaced: {error}") from error
        self._journal.start_anew()
        self._notify(
            "store-damaged", f"the sample store was damaged; it was moved to {moved.name} and started anew"
        )

    def _set_storing(self, storing: bool, text: str) -> None:
        if storing != self._storing:
            self._storing = storing
            self._notify("storing-resumed" if storing else "not-storing", text or "samples are stored again")

    def _notify(self, code: str, text: str) -> None:
        log.warning("%s: %s", code, text)
        if self._on_notice is not None:
            self._on_notice(Notice(code, text[:1000]))


def feature_set(profile: DeviceProfile) -> str:
    """Return the id of how a profile's raw windows are made; part of every sample."""
    return f"{profile.name}/{profile.version}"


def as_sample(window: Window, spec: str, features: str) -> Sample:
    """Return a window as a sample of ``spec``."""
    return Sample(spec, window.array, window.start_us, window.end_us, features, window.valid)


def _identity(profile: DeviceProfile) -> str:
    """Return what a journal must agree on to be continued: channels in order, and the window."""
    return msgspec.json.encode([profile.channels, profile.window]).decode()
