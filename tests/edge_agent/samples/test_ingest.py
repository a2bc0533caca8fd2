"""Files fill the store by the same rules as live telemetry; bad files are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.telemetry import T0_S, profile

from hedgerow.edge_agent.samples.ingest import ingest_arrays, ingest_csv
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import CsvSpec, DeviceProfile
from hedgerow.shared.specs import TensorSpec

IMAGE = TensorSpec("image", "uint8", (8, 8, 1), "image")


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore(tmp_path / "s.db", max_bytes=2**23, max_age_s=None)


def recording(path: Path, rows: int, start: int = 0) -> Path:
    lines = [f"{T0_S + start + n},{n},{-n},1" for n in range(rows)]
    path.write_text("t,a,b,anomaly\n" + "\n".join(lines) + "\n")
    return path


def test_windows_of_each_file_are_stored_and_none_spans_two(tmp_path: Path, store: SampleStore) -> None:
    files = [recording(tmp_path / "1.csv", 10), recording(tmp_path / "2.csv", 8, start=10)]

    done = ingest_csv(profile(), files, store)

    assert (done.rows, done.samples) == (18, 7 + 5)
    batch = store.read("window")
    assert batch.arrays[0, :, 0].tolist() == [0, 1, 2, 3]
    assert all(np.diff(array[:, 0]).tolist() == [1, 1, 1] for array in batch.arrays)


def test_ingesting_again_adds_nothing(tmp_path: Path, store: SampleStore) -> None:
    path = recording(tmp_path / "1.csv", 10)
    ingest_csv(profile(), [path], store)

    assert ingest_csv(profile(), [path], store).samples == 0
    assert store.count("window") == 7


def test_only_the_first_rows_are_taken_where_asked(tmp_path: Path, store: SampleStore) -> None:
    done = ingest_csv(profile(), [recording(tmp_path / "1.csv", 100)], store, first_rows=20)

    assert (done.rows, done.samples) == (20, 17)


def test_faults_in_a_file_are_counted(tmp_path: Path, store: SampleStore) -> None:
    path = tmp_path / "1.csv"
    path.write_text(
        f"t,a,b\n{T0_S},1,1\nnoon,1,1\n{T0_S + 1},,1\n{T0_S + 2},x,1\n{T0_S + 3}\n\n{T0_S + 4},inf,1\n"
        f"{T0_S + 5},5000,1\n{T0_S + 5},1,1\n{T0_S + 4},1,1\n"
    )

    counts = ingest_csv(profile(), [path], store).counts

    assert counts["bad-timestamp"] == 1
    assert counts["missing"] == 1
    assert counts["not-a-number"] == 2
    assert counts["wrong-shape"] == 1
    assert counts["out-of-range"] == 1
    assert counts["duplicate"] == 1
    assert counts["out-of-order"] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time;a;b\n", "no column 't'"),
        ("t,a\n", "no column 'b'; there are 't', 'a'"),
        ("", "no column"),
        ("t,a,b\n" + '"' + "x" * 200_000, "cannot be read as CSV"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, store: SampleStore, text: str, expected: str
) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"odd\.csv") as caught:
        ingest_csv(profile(), [path], store)

    assert expected in str(caught.value)


def test_a_missing_file_and_a_profile_without_csv_are_refused(tmp_path: Path, store: SampleStore) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv"):
        ingest_csv(profile(), [tmp_path / "nowhere.csv"], store)
    with pytest.raises(ConfigError, match=r"no \[csv\]"):
        ingest_csv(profile(csv=None), [tmp_path / "x.csv"], store)


def test_binary_rubbish_is_refused_or_counted(tmp_path: Path, store: SampleStore) -> None:
    path = tmp_path / "rubbish.csv"
    path.write_bytes(b"t,a,b\n" + bytes(range(256)) * 20)

    assert ingest_csv(profile(), [path], store).samples == 0


def test_titles_map_to_channels(tmp_path: Path, store: SampleStore) -> None:
    device: DeviceProfile = profile(
        csv=CsvSpec(";", "when", "%d.%m.%Y %H:%M:%S", {"a": "Volume Flow", "b": "B"}, ("anomaly",))
    )
    path = tmp_path / "1.csv"
    lines = [f"01.02.2020 00:00:0{n};0;{n};{n + 0.5}" for n in range(5)]
    path.write_text("when;anomaly;Volume Flow;B\n" + "\n".join(lines))

    ingest_csv(device, [path], store)

    assert store.read("window").arrays[0].tolist() == [[n, n + 0.5] for n in range(4)]


def test_images_with_labels_are_stored(tmp_path: Path, store: SampleStore) -> None:
    x = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8, 1)
    np.savez(tmp_path / "d.npz", x=x, y=np.array([4, 0, 9]))

    done = ingest_arrays(tmp_path / "d.npz", IMAGE, store)

    assert (done.rows, done.samples) == (3, 3)
    batch = store.read("image")
    assert (batch.arrays == x).all()
    assert batch.labels == [4, 0, 9]


def test_equal_images_are_all_kept(tmp_path: Path, store: SampleStore) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 8, 8, 1), np.uint8))

    assert ingest_arrays(tmp_path / "d.npz", IMAGE, store).samples == 5
    assert store.read("image").labels == [None] * 5


def test_archives_that_are_not_what_the_spec_says_are_refused(tmp_path: Path, store: SampleStore) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(ContentError, match="expected uint8"):
        ingest_arrays(path, IMAGE, store)
    np.savez(path, x=np.zeros((5, 8, 8, 1), np.uint8), y=np.zeros(4, np.int64))
    with pytest.raises(ContentError, match="5 integer labels"):
        ingest_arrays(path, IMAGE, store)
    np.savez(path, z=np.zeros(5))
    with pytest.raises(ConfigError, match="no array 'x'"):
        ingest_arrays(path, IMAGE, store)
    np.savez(path, x=np.array([object()]))
    with pytest.raises(ConfigError, match="NumPy archive"):
        ingest_arrays(path, IMAGE, store)
    path.write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match="NumPy archive"):
        ingest_arrays(path, IMAGE, store)
