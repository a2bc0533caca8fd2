"""Files, messages and restarts give the same windows, byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.skab import skab_folder
from tests.support.telemetry import T0_S, channel, profile

from hedgerow.edge_agent.telemetry.csv_backfill import read_rows
from hedgerow.edge_agent.telemetry.journal import Journal
from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.edge_agent.telemetry.reading import Row
from hedgerow.edge_agent.telemetry.stream import RowStream
from hedgerow.edge_agent.telemetry.windower import Window
from hedgerow.shared.profile import DeviceProfile, WindowSpec

Plain = tuple[bytes, int, int, float]


def plain(windows: list[Window] | tuple[Window, ...]) -> list[Plain]:
    return [(window.array.tobytes(), window.start_us, window.end_us, window.valid) for window in windows]


def by_messages(device: DeviceProfile, payloads: list[bytes]) -> list[Plain]:
    stream = RowStream(device)
    mapping = Mapping(device.source[0], device.channels)
    windows: list[Window] = []
    for payload in payloads:
        windows += stream.feed(mapping.decode(payload, 0).rows).windows
    return plain([*windows, *stream.finish().windows])


def by_file(device: DeviceProfile, path: Path) -> list[Plain]:
    stream = RowStream(device)
    windows: list[Window] = []
    for row in read_rows(path, device, Counter()):
        windows += stream.feed((row,)).windows
    return plain([*windows, *stream.finish().windows])


def bench(**window: Any) -> DeviceProfile:
    channels = (channel("a", max_step=50.0), channel("b", minimum=-80.0, maximum=80.0))
    return profile(
        channel=channels, window=WindowSpec(**{"length": 4, "max_hold_rows": 2, "min_valid": 0.5} | window)
    )


values = st.one_of(st.none(), st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 6)))
steps = st.sampled_from(
    [1.0, 1.0, 1.0, 1.0, 0.0, 0.25, 0.5, 0.75, 1.5, 2.0, 3.0, 4.0, 9.0, -1.0, -3.0, 500.0, -500.0]
)
recordings = st.lists(st.tuples(steps, values, values), min_size=1, max_size=60)


def timed(
    recording: list[tuple[float, float | None, float | None]],
) -> list[tuple[float, float | None, float | None]]:
    second, rows = 1000.0, []
    for step, a, b in recording:
        second = max(0.0, second + step)
        rows.append((T0_S + second, a, b))
    return rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recording=recordings, stride=st.integers(1, 3), late=st.integers(0, 2))
def test_a_file_and_messages_give_the_same_bytes(
    tmp_path: Path, recording: list[tuple[float, float | None, float | None]], stride: int, late: int
) -> None:
    device = bench(stride=stride, late_rows=late)
    rows = timed(recording)
    path = tmp_path / "r.csv"
    lines = [",".join("" if cell is None else repr(cell) for cell in row) for row in rows]
    path.write_text("t,a,b\n" + "\n".join(lines) + "\n")
    payloads = [json.dumps({"t": t, "a": a, "b": b}).encode() for t, a, b in rows]

    assert by_file(device, path) == by_messages(device, payloads)


@pytest.mark.skab
def test_a_real_recording_gives_the_same_bytes_both_ways() -> None:
    from hedgerow.shared.profile import SourceSpec, read_profile

    given = read_profile(Path(__file__).parents[3] / "firmware_configs/profiles/skab.toml")
    device = DeviceProfile("skab", 1, channel=given.channel, window=given.window, csv=given.csv,
                           source=(SourceSpec("s", timestamp="t"),))  # fmt: skip
    path = skab_folder() / "valve1" / "0.csv"
    header, *lines = path.read_text().splitlines()
    titles = header.split(";")
    assert device.csv is not None
    columns = {device.csv.columns.get(name, name): name for name in device.channels}
    payloads = []
    for line in lines:
        cells = dict(zip(titles, line.split(";"), strict=True))
        numbers = ", ".join(f'"{name}": {cells[title]}' for title, name in columns.items())
        payloads.append(f'{{"t": "{cells[device.csv.timestamp]}", {numbers}}}'.encode())

    windows = by_file(device, path)

    assert len(windows) > 5
    assert windows == by_messages(device, payloads)


class Restarting:
    """A stream that is thrown away and restored from its journal's entries at given rows."""

    def __init__(self, device: DeviceProfile) -> None:
        import sqlite3

        self.device = device
        self.disk = sqlite3.connect(":memory:")
        self.windows: list[Window] = []
        self._begin()

    def _begin(self) -> None:
        self.stream = RowStream(self.device)
        self.journal = Journal("bench")
        self.journal.prepare(self.disk)
        self.journal.restore(self.disk, self.stream)

    def feed(self, row: Row, restart: bool) -> None:
        fed = self.stream.feed((row,))
        self.windows += fed.windows
        self.journal.follow(fed, self.stream)
        self.journal.write(self.disk)
        self.journal.written()
        if restart:
            self._begin()


@settings(max_examples=150, deadline=None)
@given(
    recording=recordings,
    restarts=st.one_of(st.just(set(range(60))), st.sets(st.integers(0, 60))),
    late=st.integers(0, 2),
)
def test_restarts_change_no_window(
    recording: list[tuple[float, float | None, float | None]], restarts: set[int], late: int
) -> None:
    device = bench(late_rows=late, min_valid=0.2)
    rows = [
        Row(round(t * 1e6), tuple((n, v) for n, v in enumerate((a, b)) if v is not None))
        for t, a, b in timed(recording)
    ]
    rows = [row for row in rows if row.values]
    straight = RowStream(device)
    expected = plain([window for row in rows for window in straight.feed((row,)).windows])

    restarting = Restarting(device)
    for n, row in enumerate(rows):
        restarting.feed(row, n in restarts)

    assert plain(restarting.windows) == expected
    stored = restarting.disk.execute("SELECT count(*) FROM readings").fetchone()[0]
    assert stored <= len(rows)


def test_a_value_held_from_before_the_window_survives_a_restart() -> None:
    restarting = Restarting(bench(late_rows=0))
    for second in (0, 3, 4, 5, 6):
        restarting.feed(Row((T0_S + second) * 1_000_000, ((0, float(second)), (1, 0.0))), True)

    assert [window.array[:, 0].tolist() for window in restarting.windows] == [
        [0, 0, 0, 3], [0, 0, 3, 4], [0, 3, 4, 5], [3, 4, 5, 6],
    ]  # fmt: skip


def test_the_journal_keeps_no_more_than_the_unfinished_window_needs() -> None:
    restarting = Restarting(bench())
    for n in range(500):
        restarting.feed(Row((T0_S + n) * 1_000_000, ((0, 1.0), (1, 2.0))), False)

    assert restarting.disk.execute("SELECT count(*) FROM readings").fetchone()[0] <= 16


def test_a_journal_of_another_profile_is_emptied() -> None:
    restarting = Restarting(bench())
    for n in range(3):
        restarting.feed(Row((T0_S + n) * 1_000_000, ((0, 1.0), (1, 2.0))), False)

    other = Journal("another")
    other.prepare(restarting.disk)

    assert other.restore(restarting.disk, RowStream(bench())) == 0


def test_a_publisher_that_sends_its_newest_reading_first_after_an_outage_loses_none() -> None:
    stream = RowStream(profile("a", window=WindowSpec(length=1)))
    order = [*range(10), 310, *range(10, 310), *range(311, 320)]

    windows = [
        window
        for second in order
        for window in stream.feed((Row((T0_S + second) * 1_000_000, ((0, float(second)),)),)).windows
    ]

    assert [window.array[0, 0] for window in windows] == list(range(320))


def test_early_rows_survive_a_restart() -> None:
    restarting = Restarting(profile("a", window=WindowSpec(length=1)))
    for second in (0, 1, 100, 2, 3, *range(4, 102)):
        restarting.feed(Row((T0_S + second) * 1_000_000, ((0, float(second)),)), True)

    assert [window.array[0, 0] for window in restarting.windows][:101] == list(range(101))
