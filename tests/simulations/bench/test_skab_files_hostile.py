"""Recordings that are not what they should be are refused by name; readings held are those of a plain account."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import Channel, CsvSpec, DeviceProfile
from hedgerow.simulations.bench.row_metrics import RowCounts, count_rows
from hedgerow.simulations.bench.skab_files import find_files, read_channels, read_recording

CHANNELS = ("flow", "heat")
PROFILE = DeviceProfile(
    "rig",
    1,
    channel=tuple(Channel(name, "V", -1e6, 1e6, 0.0, 1.0) for name in CHANNELS),
    csv=CsvSpec(separator=";", timestamp="time", columns={"flow": "Flow Rate"}),
)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "odd.csv"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"Flow Rate;heat;anomaly\n1;2;\xe4\n", "cannot be read as CSV in UTF-8"),
        ("Flow Rate;heat;anomaly\n1;2;0\n".encode("utf-16"), "cannot be read as CSV in UTF-8"),
        (b"Flow Rate;heat;anomaly\n" + b"9" * 200_000 + b";1;0\n", "field larger than field limit"),
        (b"Flow Rate;heat;anomaly\n;2;0\n", "the first row has an empty cell"),
        (b"Flow Rate;heat;anomaly\n1\n", "the first row has an empty cell"),
        (b"Flow Rate;heat;anomaly\n\n\n", "0 rows; the protocol needs at least 1"),
    ],
)
def test_content_that_cannot_be_read_is_refused_by_its_file(tmp_path: Path, data: bytes, words: str) -> None:
    path = written(tmp_path, data)

    with pytest.raises(ContentError, match=r"odd\.csv: ") as caught:
        read_recording(path, PROFILE, 1)

    assert words in str(caught.value)


def test_a_file_over_its_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CSV_BYTES", 20)
    path = written(tmp_path, b"Flow Rate;heat;anomaly\n1;2;0\n")

    with pytest.raises(ContentError, match=r"odd\.csv: larger than 20 bytes"):
        read_channels(path, PROFILE, 1)


def test_a_profile_without_csv_is_refused_by_name(tmp_path: Path) -> None:
    bare = DeviceProfile("bare", 1, channel=PROFILE.channel)

    with pytest.raises(ConfigError, match=r"profile 'bare' has no \[csv\] table"):
        read_recording(written(tmp_path, b"x"), bare, 1)


def test_missing_columns_are_all_named_with_the_separator_and_what_there_is(tmp_path: Path) -> None:
    path = written(tmp_path, b"time,Flow Rate,heat\n")

    with pytest.raises(ConfigError) as caught:
        read_recording(path, PROFILE, 1)

    assert str(caught.value).endswith(
        "no column Flow Rate, heat, anomaly (separator ';'); there are time,Flow Rate,heat"
    )


def test_a_byte_order_mark_is_no_part_of_the_first_title(tmp_path: Path) -> None:
    path = written(tmp_path, "Flow Rate;heat;anomaly\n1;2;1\n".encode("utf-8-sig"))

    recording = read_recording(path, PROFILE, 1)

    assert recording.rows.tolist() == [[1.0, 2.0]]
    assert recording.anomaly.tolist() == [True]


def test_a_recording_is_named_by_folder_and_file(tmp_path: Path) -> None:
    folder = tmp_path / "valve1"
    folder.mkdir()

    assert (
        read_recording(written(folder, b"Flow Rate;heat;anomaly\n1;2;0\n"), PROFILE, 1).name == "valve1/odd"
    )


cells = st.one_of(
    st.integers(-1000, 1000).map(str), st.sampled_from(["", " ", "n/a", "nan", "inf", "-inf", "1e400", "--1"])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(cells, cells, st.sampled_from(["0", "1", "0.0", "1.0", ""])), max_size=15),
    short=st.booleans(),
)
def test_every_cell_is_its_own_number_or_the_last_one_above_it(
    tmp_path: Path, rows: list[tuple[str, str, str]], short: bool
) -> None:
    whole = [("7", "8", "0"), *rows]
    path = tmp_path / "r.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["time", "Flow Rate", "heat", "anomaly"])
        writer.writerows(["t", *row] for row in whole)
        if short:
            writer.writerow(["t", "5"])

    recording = read_recording(path, PROFILE, 1)

    expected: list[list[float]] = []
    held = 0
    for row in [*whole, *([("5", "", "")] if short else [])]:
        values = []
        for k, cell in enumerate(row):
            digits = cell.removeprefix("-")
            if digits.replace(".", "", 1).isdigit():
                values.append(float(cell))
            else:
                values.append(expected[-1][k])
                held += k < 2
        expected.append(values)
    assert recording.rows.tolist() == [values[:2] for values in expected]
    assert recording.anomaly.tolist() == [values[2] > 0.5 for values in expected]
    assert recording.held == held
    assert np.array_equal(read_channels(path, PROFILE, 1), recording.rows)


def test_files_of_several_folders_come_folder_by_folder(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a/1", "a/note"):
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a" / "3.txt").touch()

    found = find_files([tmp_path / "b", tmp_path / "a"])

    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "b/2.csv",
        "b/10.csv",
        "a/1.csv",
        "a/note.csv",
    ]
    with pytest.raises(ConfigError, match=r"nowhere: no CSV files there"):
        find_files([tmp_path / "a", tmp_path / "nowhere"])


flags = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40)


def as_arrays(rows: list[tuple[bool, bool]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, np.bool_).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(flags, flags)
def test_counting_files_apart_and_adding_is_counting_them_joined(
    first: list[tuple[bool, bool]], second: list[tuple[bool, bool]]
) -> None:
    apart = count_rows(*as_arrays(first)) + count_rows(*as_arrays(second))

    assert apart == count_rows(*as_arrays(first + second))
    assert apart + RowCounts() == apart
    assert sum((apart.hits, apart.false_alarms, apart.misses, apart.quiet)) == len(first) + len(second)


@given(flags)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(rows: list[tuple[bool, bool]]) -> None:
    rates = count_rows(*as_arrays(rows)).rates()
    hits = sum(alarm and anomaly for alarm, anomaly in rows)
    alarms, anomalies = sum(alarm for alarm, _ in rows), sum(anomaly for _, anomaly in rows)

    if hits:
        precision, recall = hits / alarms, hits / anomalies
        assert rates["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
        assert rates["mar_percent"] == pytest.approx(100 * (1 - recall))
    else:
        assert rates["f1"] == 0
    normal = len(rows) - anomalies
    assert rates["far_percent"] == pytest.approx(100 * (alarms - hits) / normal if normal else 0.0)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder, pipe, link = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv"
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")

    for path, why in ((folder, "not a file"), (pipe, "not a file"), (link, "cannot be read: No such file")):
        with pytest.raises(ContentError, match=rf"{path.name}: {why}"):
            read_recording(path, PROFILE, 1)
    with pytest.raises(ContentError, match="/dev/zero: not a file"):
        read_channels(Path("/dev/zero"), PROFILE, 1)


@pytest.mark.parametrize("cell", ["1e39", "-1e39", "1e400", "inf", "nan", "", "x"])
def test_a_reading_that_float32_cannot_hold_is_held_from_the_row_before(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"Flow Rate;heat;anomaly\n1;2;0\n{cell};4;1\n5;6;0\n".encode())
    found = read_recording(path, PROFILE, 1)

    assert found.rows.tolist() == [[1, 2], [1, 4], [5, 6]]
    assert (found.held, found.anomaly.tolist()) == (1, [False, True, False])
