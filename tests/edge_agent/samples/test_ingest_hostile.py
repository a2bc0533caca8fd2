"""Archives that lie, are damaged, or come from elsewhere are refused by name, and leave the store as it was."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.samples import ingest
from hedgerow.edge_agent.samples.ingest import ingest_arrays
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.specs import TensorSpec

PAIR = TensorSpec("pair", "uint8", (2,), "scores")
ROWS = np.arange(40, dtype=np.uint8).reshape(20, 2)


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore(tmp_path / "s.db", max_bytes=2**22, max_age_s=None)


def npy(shape: tuple[int, ...], body: bytes) -> bytes:
    """An array file that says ``shape`` and holds ``body``, whether that fits or not."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue() + body


def packed(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def patched(path: Path, local: int, central: int, value: int) -> Path:
    """Change one byte of the first member's two headers."""
    data = bytearray(path.read_bytes())
    data[local] = value
    data[data.find(b"PK\x01\x02") + central] = value
    path.write_bytes(data)
    return path


def compressed_and_broken(path: Path) -> Path:
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 255, (1000, 2), np.uint8))
    data = bytearray(path.read_bytes())
    data[60:120] = b"\xff" * 60
    path.write_bytes(data)
    return path


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


GOOD = npy((1, 2), b"12")
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "compressed and broken": (compressed_and_broken, "cannot be read as a NumPy archive"),
    "larger than any memory": (lambda p: packed(p, x=npy((10**13, 2), b"12")), "cannot be read as a NumPy archive"),
    "shorter than it says": (lambda p: packed(p, x=npy((10, 2), b"12")), "cannot be read as a NumPy archive"),
    "negative axis": (lambda p: packed(p, x=npy((-5, 2), b"12")), "cannot be read as a NumPy archive"),
    "encrypted": (lambda p: patched(packed(p, x=GOOD), 6, 8, 1), "encrypted"),
    "packed in another way": (lambda p: patched(packed(p, x=GOOD), 8, 10, 99), "compression method"),
    "text as an array": (lambda p: packed(p, x=b"hello"), "'x' is not an array"),
    "nothing as an array": (lambda p: packed(p, x=b""), "'x' is not an array"),
    "text as labels": (lambda p: packed(p, x=GOOD, y=b"cat"), "'y' is not an array"),
    "header cut off": (lambda p: packed(p, x=b"\x93NUMPY\x01\x00\x10\x00{'descr': 'zzz'\n"), "NumPy archive"),
    "bare array": (lambda p: (p.write_bytes(GOOD), p)[1], "NumPy archive"),
    "empty file": (lambda p: (p.write_bytes(b""), p)[1], "NumPy archive"),
    "a folder": (a_folder, "NumPy archive"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_that_cannot_be_trusted_is_refused_by_name(
    tmp_path: Path, store: SampleStore, kind: str
) -> None:
    make, words = HOSTILE[kind]
    path = make(tmp_path / "odd.npz")

    with pytest.raises(ConfigError, match=r"odd\.npz") as caught:
        ingest_arrays(path, PAIR, store)

    assert words in str(caught.value)
    assert store.specs() == {}


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_MAX_ARCHIVE_BYTES", 1000)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((5000, 2), np.uint8))
    assert path.stat().st_size < 1000

    with pytest.raises(ConfigError, match=r"bomb\.npz: unpacks to 10128 bytes; at most 1000"):
        ingest_arrays(path, PAIR, store)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, -1]), "y holds -1 to 0"),
        (np.array([2**31, 0]), "y holds 0 to 2147483648"),
        (np.array([2**63 + 4, 1], np.uint64), "y holds 1 to 9223372036854775812"),
        (np.array([0.0, 1.0]), "2 integer labels, got float64"),
        (np.array([True, False]), "2 integer labels, got bool"),
        (np.array([[0, 1]]), r"2 integer labels, got int64 \(1, 2\)"),
        (np.array(3), r"2 integer labels, got int64 \(\)"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(
    tmp_path: Path, store: SampleStore, labels: np.ndarray, words: str
) -> None:
    path = tmp_path / "labelled.npz"
    np.savez(path, x=ROWS[:2], y=labels)

    with pytest.raises(ContentError, match=words):
        ingest_arrays(path, PAIR, store)
    assert store.count("pair") == 0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_labels_of_any_integer_kind_are_kept(tmp_path: Path, store: SampleStore, dtype: type) -> None:
    path = tmp_path / "labelled.npz"
    np.savez(path, x=ROWS[:3], y=np.array([0, 7, 127], dtype))

    assert ingest_arrays(path, PAIR, store).samples == 3
    assert store.read("pair").labels == [0, 7, 127]


def test_samples_are_dated_by_position_and_groups_leave_no_seam(
    tmp_path: Path, store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_GROUP", 7)
    path = tmp_path / "many.npz"
    np.savez(path, x=ROWS)

    done = ingest_arrays(path, PAIR, store)

    batch = store.read("pair")
    assert (done.rows, done.samples, done.counts) == (20, 20, {})
    assert batch.start_us.tolist() == batch.end_us.tolist() == list(range(20))
    assert np.array_equal(batch.arrays, ROWS)
    assert batch.labels == [None] * 20


def test_an_archive_without_samples_adds_none_and_makes_its_spec_known(
    tmp_path: Path, store: SampleStore
) -> None:
    path = tmp_path / "none.npz"
    np.savez(path, x=ROWS[:0], y=np.zeros(0, np.int64))

    assert ingest_arrays(path, PAIR, store).rows == 0
    assert store.specs() == {"pair": PAIR}


WHOLE = io.BytesIO()
np.savez_compressed(WHOLE, x=ROWS, y=np.arange(20))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(tmp_path: Path, store: SampleStore, data: st.DataObject) -> None:
    whole = WHOLE.getvalue()
    at = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=12))
    path = tmp_path / "damaged.npz"
    path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])

    try:
        ingest_arrays(path, PAIR, store)
    except (ConfigError, ContentError) as error:
        assert "damaged.npz" in str(error) or "tensor 'pair'" in str(error)
    else:
        # zip's checksums let through only what unpacks to the same bytes, or what nobody reads
        assert store.read("pair").arrays.tolist() == ROWS.tolist()
