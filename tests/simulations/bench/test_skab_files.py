"""Labelled recordings: read as they are, refused with file and column when they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.configs import CONFIGS

from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import read_profile
from hedgerow.simulations.bench.skab_files import find_files, read_channels, read_recording

PROFILE = read_profile(CONFIGS / "profiles" / "skab.toml")
TITLES = "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"


def write(folder: Path, rows: list[str], titles: str = f"{TITLES};anomaly;changepoint") -> Path:
    path = folder / "0.csv"
    path.write_text("\n".join([titles, *rows]) + "\n")
    return path


def row(second: int, *, flow: str = "32.0", label: str = "0.0") -> str:
    return f"2020-03-09 10:14:{second:02d};0.02;0.04;1.3;0.05;79.3;26.0;233.0;{flow};{label};0.0"


def test_channels_come_in_the_profile_s_order_and_labels_apart(tmp_path: Path) -> None:
    path = write(tmp_path, [row(1), row(2, flow="31.0", label="1.0")])

    recording = read_recording(path, PROFILE, 2)

    assert recording.rows.dtype == np.float32 and recording.rows.shape == (2, 8)
    assert recording.rows[:, PROFILE.channels.index("flow")].tolist() == [32.0, 31.0]
    assert recording.anomaly.tolist() == [False, True]
    assert recording.held == 0


def test_columns_in_another_order_are_found_by_title(tmp_path: Path) -> None:
    titles = "anomaly;" + ";".join(reversed(TITLES.split(";")))
    path = write(tmp_path, ["1.0;32.0;233.0;26.0;79.3;0.05;1.3;0.04;0.02;2020-03-09 10:14:01"], titles)

    recording = read_recording(path, PROFILE, 1)

    assert recording.rows[0, -1] == 32.0 and recording.rows[0, 0] == np.float32(0.02)
    assert recording.anomaly.tolist() == [True]


@pytest.mark.parametrize("cell", ["", "n/a", "nan", "inf"])
def test_an_empty_cell_is_held_and_counted(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, [row(1), row(2, flow=cell), row(3, flow="30.0")])

    recording = read_recording(path, PROFILE, 3)

    assert recording.rows[:, -1].tolist() == [32.0, 32.0, 30.0]
    assert recording.held == 1


def test_a_first_row_with_an_empty_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match=r"0\.csv.*first row"):
        read_recording(write(tmp_path, [row(1, flow="")]), PROFILE, 1)


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.csv: no column anomaly"):
        read_recording(write(tmp_path, ["x"], TITLES), PROFILE, 1)
    with pytest.raises(ConfigError, match="Voltage"):
        read_recording(write(tmp_path, ["x"], "datetime,Voltage,anomaly"), PROFILE, 1)


def test_a_short_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="2 rows; the protocol needs at least 401"):
        read_recording(write(tmp_path, [row(1), row(2)]), PROFILE, 401)
    with pytest.raises(ConfigError, match="there are none"):
        empty = tmp_path / "1.csv"
        empty.write_text("")
        read_recording(empty, PROFILE, 1)


def test_files_come_in_the_order_of_their_numbers_and_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for name in ("10", "2", "1"):
        (tmp_path / f"{name}.csv").write_text("x")

    assert [path.stem for path in find_files([tmp_path])] == ["1", "2", "10"]
    (tmp_path / "void").mkdir()
    with pytest.raises(ConfigError, match="no CSV files"):
        find_files([tmp_path / "void"])


def test_channels_alone_are_read_from_files_with_any_labels_or_none(tmp_path: Path) -> None:
    labelled = read_channels(write(tmp_path, [row(1), row(2, flow="", label="oops")]), PROFILE, 2)
    bare = read_channels(write(tmp_path, [row(n).rsplit(";", 2)[0] for n in (1, 2)], TITLES), PROFILE, 2)

    assert labelled.dtype == np.float32 and labelled.shape == (2, 8)
    assert (labelled == bare).all()
    with pytest.raises(ContentError, match="at least 3"):
        read_channels(write(tmp_path, [row(1), row(2)]), PROFILE, 3)
