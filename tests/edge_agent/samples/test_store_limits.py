"""The store's edges: what cannot be stored, what a reader may ask, what a file that is not ours means."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.samples import schema
from hedgerow.edge_agent.samples.schema import DamagedError, as_storage_error
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.specs import Sample, TensorSpec


def opened(path: Path, **changes: Any) -> SampleStore:
    return SampleStore(path, **{"max_bytes": 2**22, "max_age_s": None} | changes)


def sample(n: int, spec: str = "s", **changes: Any) -> Sample:
    return Sample(spec, np.full(3, n, np.float32), n, n, "f", **changes)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 2), np.float32), r"shape \(0, 2\) needs"),
        (np.zeros((1,) * (limits.MAX_TENSOR_DIMS + 1), np.float32), "positive axes"),
        (np.float32(3), r"float32 \(\) cannot be stored"),
        (np.zeros(3, np.float64), r"float64 \(3,\) cannot be stored"),
        (np.array(["a"]), "cannot be stored"),
        (np.zeros(3, ">f4"), "cannot be stored"),
    ],
)
def test_a_sample_that_has_no_spec_is_refused_by_name_and_nothing_is_stored(
    tmp_path: Path, array: Any, words: str
) -> None:
    store = opened(tmp_path / "s.db")

    with pytest.raises(ContentError, match=words) as caught:
        store.add([sample(1), Sample("odd", np.asarray(array), 0, 0, "f")])

    assert "'odd'" in str(caught.value)
    assert store.specs() == {}


@pytest.mark.parametrize(
    ("dtype", "shape", "kind"),
    [
        ("float32", (4, 2), "window"),
        ("uint8", (4, 4, 1), "image"),
        ("float32", (5,), "scores"),
        ("int32", (5,), "tokens"),
        ("int64", (2, 2), "tokens"),
        ("float32", (2, 2, 2), "window"),
        ("uint8", (7,), "window"),
    ],
)
def test_the_kind_of_an_undeclared_sample_follows_from_its_array(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], kind: str
) -> None:
    store = opened(tmp_path / "s.db")
    store.add([Sample("x", np.ones(shape, dtype), 0, 0, "f")])

    assert store.specs() == {"x": TensorSpec("x", dtype, shape, kind)}  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["float32", "uint8", "int32", "int64"]),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=limits.MAX_TENSOR_DIMS),
    seed=st.integers(0, 2**31),
    fortran=st.booleans(),
)
def test_any_array_comes_back_bit_for_bit(dtype: str, shape: list[int], seed: int, fortran: bool) -> None:
    bits = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    array = np.frombuffer(bits, dtype).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder) / "s.db")
        store.add([Sample("x", np.asfortranarray(array) if fortran else array, 1, 2, "f")])
        found = store.read("x").arrays[0]
        store.close()

    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


@settings(max_examples=40, deadline=None)
@given(after=st.integers(-2, 14), up_to=st.none() | st.integers(-2, 14), limit=st.none() | st.integers(0, 14))
def test_a_read_is_a_slice_of_the_ids(after: int, up_to: int | None, limit: int | None) -> None:
    store = opened(Path(":memory:"))
    store.add([sample(n, "a" if n % 3 else "b") for n in range(12)])
    ids = store.read("a").ids.tolist()

    found = store.read("a", after_id=after, up_to_id=up_to, limit=limit).ids.tolist()

    assert found == [n for n in ids if n > after and (up_to is None or n <= up_to)][:limit]
    store.close()


def test_ids_are_never_used_again_after_the_oldest_went(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db", max_age_s=1e-6 * 2)
    store.add([sample(n) for n in range(5)])
    last = store.last_id("s")
    store.add([sample(1000)])
    with store.connection() as connection:
        connection.execute("DELETE FROM samples")
    store.add([sample(2000)])

    assert store.last_id("s") > last + 1


def test_what_runs_beside_the_samples_is_in_their_transaction(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS beside (n)")

    store.on_reset(prepare)

    def note(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO beside VALUES (1)")

    def fail(connection: sqlite3.Connection) -> None:
        note(connection)
        raise RuntimeError("no")

    store.add([sample(1)], also=note)
    with pytest.raises(RuntimeError, match="no"):
        store.add([sample(2, "new")], also=fail)

    with store.connection() as connection:
        assert connection.execute("SELECT count(*) FROM beside").fetchone() == (1,)
    assert store.count("s") == 1
    assert set(store.specs()) == {"s"}, "a spec of a transaction that failed is not known"


def test_a_fresh_store_is_prepared_again_for_those_who_keep_tables_in_it(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    prepared: list[sqlite3.Connection] = []
    store.on_reset(prepared.append)
    store.add([sample(1)])

    moved = store.start_anew()

    assert len(prepared) == 2 and prepared[0] is not prepared[1]
    assert store.moved_aside == moved and moved.exists()
    assert store.count("s") == 0
    assert opened(moved, read_only=True).count("s") == 1, "the old file is there for a person"


def test_closing_twice_is_harmless_and_later_use_is_a_storage_error(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.add([sample(1)])
    store.close()
    store.close()

    with pytest.raises(StorageError, match=r"s\.db: the sample store failed"):
        store.count("s")
    with pytest.raises(StorageError):
        store.add([sample(2)])


def test_a_reader_may_neither_declare_nor_start_anew(tmp_path: Path) -> None:
    opened(tmp_path / "s.db").add([sample(1)])
    reader = opened(tmp_path / "s.db", read_only=True)

    for act in (lambda: reader.declare(TensorSpec("t", "float32", (1,), "scores")), reader.start_anew):
        with pytest.raises(StorageError, match="reading only"):
            act()
    assert (tmp_path / "s.db").exists()


def test_a_reader_learns_of_specs_that_come_later(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    reader = opened(tmp_path / "s.db", read_only=True)
    assert reader.count("late") == 0

    store.add([sample(1, "late")])

    assert reader.count("late") == 1
    assert reader.last_id("late") == store.last_id("late")


def test_a_sample_cut_short_on_disk_is_damage_and_not_a_wrong_array(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.add([sample(1), sample(2)])
    with store.connection() as connection:
        connection.execute("UPDATE samples SET data = substr(data, 1, 5) WHERE id = 2")

    with pytest.raises(DamagedError, match="sample 2 has 5 bytes, not 12"):
        store.read("s")


def test_a_folder_where_the_file_should_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "s.db").mkdir()
    with pytest.raises(StorageError, match=r"s\.db"):
        opened(tmp_path / "s.db")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be opened"):
        opened(tmp_path / "file" / "s.db")


def test_an_empty_file_becomes_a_store_but_is_none_to_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.touch()
    with pytest.raises(StorageError, match="just being made"):
        opened(path, read_only=True)

    assert opened(path).add([sample(1)]) == 1


def test_a_foreign_database_is_damage_to_a_reader_and_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE precious (x)")

    with pytest.raises(DamagedError, match="not a sample store"):
        opened(path, read_only=True)
    assert path.exists()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_CORRUPT, DamagedError, "is damaged"),
        (sqlite3.SQLITE_NOTADB, DamagedError, "is damaged"),
        (sqlite3.SQLITE_CORRUPT | 1 << 8, DamagedError, "is damaged"),
        (sqlite3.SQLITE_FULL, StorageError, "the disk is full; nothing committed is lost"),
        (sqlite3.SQLITE_BUSY, StorageError, "the sample store failed: told"),
        (None, StorageError, "the sample store failed: told"),
    ],
)
def test_an_sqlite_error_says_what_it_means_and_where(
    code: int | None, kind: type[StorageError], words: str
) -> None:
    error = sqlite3.OperationalError("told")
    if code is not None:
        error.sqlite_errorcode = code

    made = as_storage_error(error, Path("/var/s.db"))

    assert type(made) is kind
    assert str(made).startswith("/var/s.db: ") and words in str(made)


def test_moving_aside_takes_the_log_along_and_leaves_other_files(tmp_path: Path) -> None:
    for name in ("s.db", "s.db-wal", "s.db-shm", "s.db.damaged-1", "other.db"):
        (tmp_path / name).write_text(name)

    moved = schema.move_aside(tmp_path / "s.db", "2")

    assert moved.read_text() == "s.db"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.db", "s.db.damaged-2"]


def test_a_store_that_was_not_closed_is_read_through_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    monkeypatch.setattr(schema, "QUICK_CHECK_BYTES", 0)
    checked: list[str] = []

    def reopen() -> SampleStore:
        checked.clear()
        connect = sqlite3.connect

        def watched(*given: Any, **named: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*given, **named)
            connection.set_trace_callback(checked.append)
            return connection

        monkeypatch.setattr(sqlite3, "connect", watched)
        store = opened(path)
        monkeypatch.setattr(sqlite3, "connect", connect)
        return store

    store = reopen()
    store.add([sample(1)])
    again = reopen()
    assert any("quick_check" in statement for statement in checked), "the first was not closed"
    again.close()
    reopen()
    assert not any("quick_check" in statement for statement in checked)
