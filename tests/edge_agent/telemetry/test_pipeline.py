"""Messages become stored windows and calls for inference; bad input and bad disks are counted and survived."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.telemetry import T0_US, channel, payload, profile

from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.telemetry.pipeline import COMMIT_MESSAGES, Pipeline
from hedgerow.edge_agent.telemetry.quarantine import Quarantine
from hedgerow.shared import limits
from hedgerow.shared.errors import StorageError
from hedgerow.shared.messages import Notice
from hedgerow.shared.profile import ClockSpec, DeviceProfile, SourceSpec, WindowSpec
from hedgerow.shared.specs import Sample


class Bench:
    """A pipeline over a store on disk, and what it told."""

    def __init__(self, folder: Path, device: DeviceProfile | None = None, *, now_us: int = T0_US) -> None:
        self.path = folder / "s.db"
        self.device = device or profile()
        self.now_us = now_us
        self.windows: list[Sample] = []
        self.notices: list[Notice] = []
        self.start()

    def start(self) -> None:
        self.store = SampleStore(self.path, max_bytes=2**22, max_age_s=None)
        self.pipeline = Pipeline(
            self.device,
            self.store,
            on_window=self.windows.append,
            on_notice=self.notices.append,
            now_us=lambda: self.now_us,
        )

    def send(self, *payloads: bytes, topic: str = "s/x", commit: bool = True, **more: Any) -> None:
        for one in payloads:
            self.pipeline.on_message(topic, one, self.now_us, **more)
        if commit:
            self.pipeline.commit()

    def codes(self) -> list[str]:
        return [notice.code for notice in self.notices]

    def refused(self) -> dict[str, int]:
        return self.pipeline.status().refused


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def rows(start: int, stop: int) -> list[bytes]:
    return [payload(n, a=n, b=-n) for n in range(start, stop)]


def test_windows_are_stored_and_handed_on_after_the_commit(bench: Bench) -> None:
    stored: list[int] = []
    bench.pipeline._on_window = lambda sample: stored.append(bench.store.count("window"))

    bench.send(*rows(0, 6), commit=False)
    assert (stored, bench.pipeline.pending) == ([], 6)
    bench.pipeline.commit()

    assert stored == [3, 3, 3]
    batch = bench.store.read("window")
    assert batch.arrays[0].tolist() == [[n, -n] for n in range(4)]
    assert bench.pipeline.pending == 0


def test_a_window_has_the_declared_shape_rate_and_feature_set(tmp_path: Path) -> None:
    device = profile("a", "b", "c", "d", window=WindowSpec(length=5, stride=5, rate_hz=2.0))
    bench = Bench(tmp_path, device)

    bench.send(*[payload(n / 2, a=n, b=n, c=n, d=n) for n in range(40)])

    sample = bench.windows[0]
    assert (sample.array.shape, sample.spec) == ((5, 4), "window")
    assert sample.array.dtype == np.float32
    assert sample.end_us - sample.start_us == 4 * 500_000
    assert sample.feature_set == "bench/1"
    assert np.diff([sample.start_us for sample in bench.windows]).tolist() == [2_500_000] * (
        len(bench.windows) - 1
    )


def test_a_commit_is_due_by_number_or_age(bench: Bench) -> None:
    assert bench.pipeline.due_in_s() is None
    bench.send(b"1", commit=False)
    due_s = bench.pipeline.due_in_s()
    assert due_s is not None
    assert 0 <= due_s <= 0.1
    bench.send(*[b"1"] * (COMMIT_MESSAGES - 1), commit=False)
    assert bench.pipeline.due_in_s() == 0.0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"\x00\xff\xfe garbage", "malformed"),
        (payload(100, a=1, b=1)[:-4], "malformed"),
        (b"[" * 50_000, "too-deep"),
        (b"1" * (limits.MAX_MQTT_PAYLOAD_BYTES + 1), "oversized"),
        (b'{"t": 1767225700, "a": NaN, "b": 1}', "malformed"),
        (b'{"t": 1767225700, "a": 1e400, "b": 1}', "malformed"),
        (payload(1.6, a=1e6, b=-2), "out-of-range"),
        (payload(100, a=1, b=1, zz=1), "unknown-channel"),
        (payload(-(10**9) * 10, a=1, b=1), "bad-timestamp"),
    ],
)
def test_bad_payloads_are_quarantined_and_the_stream_goes_on(bench: Bench, bad: bytes, reason: str) -> None:
    bench.send(*rows(0, 2), bad, *rows(2, 4))

    assert bench.refused()[reason] == 1
    assert bench.pipeline.status().quarantined == 1
    assert len(bench.windows) == 1
    assert bench.windows[0].array[:, 0].tolist() == [0, 1, 2, 3]
    with bench.store.connection() as connection:
        (entry,) = Quarantine.recent(connection)
    assert (entry.reason, entry.payload) == (reason, bad[:256])


def test_a_topic_of_no_source_is_quarantined(bench: Bench) -> None:
    bench.send(b"1", topic="other/x")

    assert bench.refused() == {"unknown-topic": 1}


def test_several_sources_fill_one_window(tmp_path: Path) -> None:
    sources = (
        SourceSpec("n/+/a", payload="value", channel="a"),
        SourceSpec("n/b", payload="array", order=("b",), timestamp="0", timestamp_unit="s"),
    )
    bench = Bench(tmp_path, profile())
    bench.device = DeviceProfile(
        "m", 1, channel=bench.device.channel, window=WindowSpec(length=3), source=sources
    )
    bench.path = tmp_path / "m.db"
    bench.start()

    for n in range(5):
        bench.now_us = T0_US + n * 1_000_000
        bench.send(str(n).encode(), topic="n/7/a")
        bench.send(json.dumps([T0_US // 1_000_000 + n, 10 + n]).encode(), topic="n/b")

    assert bench.windows[0].array.tolist() == [[0, 10], [1, 11], [2, 12]]
    assert bench.pipeline.topics == [("n/+/a", 1), ("n/b", 1)]


@pytest.mark.parametrize("dated", [True, False])
def test_a_retained_message_counts_only_where_it_says_when_it_was(tmp_path: Path, dated: bool) -> None:
    source = (
        SourceSpec("s/x", timestamp="t", timestamp_unit="s")
        if dated
        else SourceSpec("s/x", fields={"a": "a", "b": "b"})
    )
    bench = Bench(tmp_path, profile(source=source))

    bench.send(payload(0, a=1, b=1), retained=True)

    assert bench.refused() == ({} if dated else {"retained": 1})
    assert bench.pipeline.status().readings == (2 if dated else 0)


def test_counters_equal_the_injected_faults(bench: Bench) -> None:
    rng = random.Random(7)
    injected = dict.fromkeys(
        ("out-of-range", "malformed", "duplicate", "out-of-order", "missing", "not-a-number"), 0
    )
    for n in range(400):
        good = payload(n, a=n % 50, b=1)
        bench.send(good, commit=False)
        fault = rng.choice([*injected, None, None, None])
        if fault is None:
            continue
        injected[fault] += 1
        bench.send(
            {
                "out-of-range": payload(n + 0.3, a=1e9),
                "malformed": good[:-2],
                "duplicate": payload(n, a=n % 50),
                "out-of-order": payload(n - 2, a=1),
                "missing": payload(n + 0.3, a=None),
                "not-a-number": payload(n + 0.3, a="high"),  # type: ignore[arg-type]
            }[fault],
            commit=False,
        )
    bench.pipeline.commit()

    refused = bench.refused()
    # An object without a channel's key misses it: each fault that names only `a` misses `b`.
    absent_b = sum(count for fault, count in injected.items() if fault != "malformed")
    assert refused.pop("missing") == injected.pop("missing") + absent_b
    assert refused == injected
    assert bench.pipeline.status().stream["windows"] == 397


def test_ten_percent_bad_payloads_raise_one_notice(bench: Bench) -> None:
    for n in range(400):
        bench.send(payload(n, a=1, b=1) if n % 8 else b"rubbish", commit=False)
    bench.pipeline.commit()

    assert bench.codes() == ["quarantine-wave"]
    assert "malformed" in bench.notices[0].text
    assert all((sample.array == 1).all() for sample in bench.windows)


def test_a_message_redelivered_after_its_commit_is_used_once(tmp_path: Path) -> None:
    source = SourceSpec("s/x", fields={"a": "a", "b": "b"})
    bench = Bench(tmp_path, profile(source=source, window=WindowSpec(length=1)))
    for n in range(3):
        bench.now_us = T0_US + n * 1_000_000
        bench.send(payload(0, a=n, b=n), packet=n + 1)
    bench.store.close()
    bench.start()
    bench.now_us += 2_000_000

    bench.send(payload(0, a=2, b=2), packet=3, redelivery=True)
    assert bench.refused() == {"redelivered": 1}
    bench.send(payload(0, a=9, b=9), packet=4, redelivery=True)
    bench.now_us += 1_000_000
    bench.send(payload(0, a=2, b=2), packet=3)

    assert bench.refused() == {"redelivered": 1}
    assert bench.store.read("window").arrays[:, 0, 0].tolist() == [0, 1, 2, 9, 2]


def test_a_restart_loses_no_row_and_repeats_no_window(bench: Bench) -> None:
    bench.send(*rows(0, 6))
    bench.store.close()
    bench.start()

    bench.send(*rows(6, 10))

    assert [sample.array[0, 0] for sample in bench.windows] == [0, 1, 2, 3, 4, 5, 6]
    assert bench.store.count("window") == 7


def test_a_clock_in_1970_is_told_and_dated_readings_are_used(tmp_path: Path) -> None:
    bench = Bench(tmp_path, profile(clock=ClockSpec(max_skew_s=10)), now_us=5_000_000)

    bench.send(*rows(0, 5))
    assert bench.codes() == ["clock-not-set"]
    assert not bench.pipeline.status().clock_ok
    assert bench.pipeline.status().messages_before_clock_set == 5
    assert len(bench.windows) == 2

    bench.now_us = T0_US + 5_000_000
    bench.send(*rows(5, 6), payload(600, a=1, b=1))
    assert bench.codes() == ["clock-not-set", "clock-set"]
    assert bench.refused() == {"clock-skew": 1}


def test_undated_readings_of_1970_never_become_windows_where_the_profile_says_so(tmp_path: Path) -> None:
    source = SourceSpec("s/x", fields={"a": "a", "b": "b"})
    bench = Bench(tmp_path, profile(source=source, clock=ClockSpec(undated="drop")), now_us=5_000_000)
    for n in range(8):
        bench.now_us = 5_000_000 + n * 1_000_000
        bench.send(payload(0, a=n, b=n))
    for n in range(4):
        bench.now_us = T0_US + n * 1_000_000
        bench.send(payload(0, a=n, b=n))

    assert bench.refused() == {"undated": 8}
    assert [sample.start_us for sample in bench.windows] == [T0_US]


def test_the_clock_being_set_ends_the_stream_of_1970(tmp_path: Path) -> None:
    source = SourceSpec("s/x", fields={"a": "a", "b": "b"})
    bench = Bench(tmp_path, profile(source=source), now_us=5_000_000)
    for now_us in [*range(5_000_000, 11_000_000, 1_000_000), *range(T0_US, T0_US + 6_000_000, 1_000_000)]:
        bench.now_us = now_us
        bench.send(payload(0, a=1, b=1))

    spans = [sample.end_us - sample.start_us for sample in bench.windows]
    assert spans == [3_000_000] * 6


class FullDisk:
    """Fills the store's file up: SQLite itself then refuses to grow it."""

    def __init__(self, store: SampleStore) -> None:
        self.store = store

    def fill(self) -> None:
        with self.store.connection() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages}")

    def free(self) -> None:
        with self.store.connection() as connection:
            connection.execute("PRAGMA max_page_count=1000000")


def big_profile() -> DeviceProfile:
    return profile("a", "b", window=WindowSpec(length=400, stride=1))


def test_a_full_disk_stops_neither_reading_nor_inference_and_nothing_committed_is_lost(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, big_profile())
    bench.send(*rows(0, 400))
    disk = FullDisk(bench.store)
    disk.fill()

    bench.send(*rows(400, 600))
    assert bench.codes() == ["not-storing"]
    assert "disk is full" in bench.notices[0].text
    assert not bench.pipeline.status().storing
    assert len(bench.windows) == 201
    assert bench.store.count("window") == 1

    disk.free()
    bench.send(*rows(600, 601))
    assert bench.codes() == ["not-storing", "storing-resumed"]
    assert bench.store.count("window") == 202
    assert bench.pipeline.status().unstored == 0


def test_what_waits_for_a_full_disk_is_bounded_and_its_loss_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hedgerow.edge_agent.telemetry.pipeline.MAX_UNSTORED_BYTES", 10 * 400 * 2 * 4)
    bench = Bench(tmp_path, big_profile())
    bench.send(*rows(0, 399))
    disk = FullDisk(bench.store)
    disk.fill()
    for n in range(399, 450):
        bench.send(*rows(n, n + 1))
    disk.free()
    bench.send(*rows(450, 451))

    status = bench.pipeline.status()
    assert status.unstored + bench.store.count("window") == len(bench.windows) == 52
    assert 9 <= bench.store.count("window") <= 12


def test_a_store_damaged_while_running_is_replaced_and_the_window_in_progress_survives(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.send(*rows(0, 6))
    with bench.store.connection() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = os.path.getsize(bench.path)  # noqa: PTH202 - the test looks at the raw file
        with bench.path.open("r+b") as file:
            file.seek(0)
            file.write(b"\x55" * size)
        connection.execute("PRAGMA cache_size=0")

    bench.send(*rows(6, 8))

    assert bench.codes() == ["store-damaged"]
    assert [sample.array[0, 0] for sample in bench.windows] == [0, 1, 2, 3, 4]
    assert bench.store.count("window") == 2
    bench.store.close()
    bench.start()
    bench.send(*rows(8, 9))
    assert bench.windows[-1].array[:, 0].tolist() == [5, 6, 7, 8]


def test_a_store_that_cannot_be_replaced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hedgerow.edge_agent.samples.schema import DamagedError

    bench = Bench(tmp_path)

    def damaged(*_: object, **__: object) -> int:
        raise DamagedError("damaged")

    def hopeless() -> Path:
        raise StorageError("no room")

    monkeypatch.setattr(bench.store, "add", damaged)
    monkeypatch.setattr(bench.store, "start_anew", hopeless)
    bench.send(*rows(0, 5))

    assert bench.codes() == ["not-storing"]
    assert len(bench.windows) == 2


def test_a_failing_inference_does_not_stop_telemetry(bench: Bench) -> None:
    def fail(sample: Sample) -> None:
        raise RuntimeError("engine")

    bench.pipeline._on_window = fail
    bench.send(*rows(0, 6))

    assert bench.pipeline.status().unscored == 3
    assert bench.store.count("window") == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(st.tuples(st.sampled_from(["s/x", "s/y", ""]), st.binary(max_size=80)), max_size=30))
def test_no_message_raises(bench: Bench, messages: list[tuple[str, bytes]]) -> None:
    for n, (topic, data) in enumerate(messages):
        bench.pipeline.on_message(topic, data, T0_US, packet=n + 1, redelivery=bool(n % 2))
    bench.pipeline.commit()


def test_a_replay_faster_than_real_time_keeps_its_own_times(tmp_path: Path) -> None:
    bench = Bench(tmp_path, profile(channel=(channel("a"), channel("b"))), now_us=T0_US + 10**12)
    bench.send(*[payload(n, a=1, b=1) for n in range(3000)])

    assert len(bench.windows) == 2997
    assert bench.windows[-1].end_us == T0_US + 2999 * 1_000_000
