"""The sample store: one file, bounded, oldest first, readable beside its writer, never half written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.samples import schema
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.specs import Sample, TensorSpec

MIB = 1024 * 1024
WINDOW = TensorSpec("window", "float32", (6, 2), "window")
IMAGE = TensorSpec("image", "uint8", (4, 4, 1), "image")


def window(n: int, *, spec: str = "window", seconds: int | None = None) -> Sample:
    time_us = (n if seconds is None else seconds) * 1_000_000
    return Sample(spec, np.full((6, 2), n, np.float32), time_us, time_us + 5, "f/1", 0.75)


def image(n: int, label: int | None) -> Sample:
    return Sample("image", np.full((4, 4, 1), n, np.uint8), n, n, "raw", label=label)


def opened(path: Path, **changes: Any) -> SampleStore:
    return SampleStore(path, **{"max_bytes": 4 * MIB, "max_age_s": None} | changes)


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")

    assert store.add([window(n) for n in range(5)]) == 5

    batch = store.read("window")
    assert batch.arrays.dtype == np.float32
    assert batch.arrays.shape == (5, 6, 2)
    assert batch.arrays[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert batch.start_us.tolist() == [n * 1_000_000 for n in range(5)]
    assert (batch.end_us - batch.start_us).tolist() == [5] * 5
    assert batch.valid.tolist() == [0.75] * 5
    assert batch.labels == [None] * 5
    assert store.count("window") == 5
    assert store.last_id("window") == batch.ids[-1]


def test_windows_images_and_tokens_live_in_one_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    tokens = Sample("text", np.arange(7, dtype=np.int64), 1, 1, "raw")

    store.add([window(1), image(7, 3), tokens, image(8, None)])

    assert store.read("image").labels == [3, None]
    assert store.read("image").arrays.dtype == np.uint8
    assert store.read("text").arrays.tolist() == [list(range(7))]
    assert {name: spec.kind for name, spec in store.specs().items()} == {
        "window": "window", "image": "image", "text": "tokens",
    }  # fmt: skip


def test_a_snapshot_by_ids_stays_the_same(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.add([window(n) for n in range(5)])
    up_to = store.last_id("window")
    store.add([image(1, 1), window(99)])

    first = store.read("window", up_to_id=up_to, limit=2)
    rest = store.read("window", after_id=int(first.ids[-1]), up_to_id=up_to)

    assert [*first.arrays[:, 0, 0], *rest.arrays[:, 0, 0]] == [0, 1, 2, 3, 4]


def test_the_same_sample_is_stored_once(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.add([window(1), window(2)])

    assert store.add([window(2), window(3), window(3)]) == 1
    assert store.count("window") == 3
    assert store.add([window(7, seconds=1)]) == 1


def test_arrays_that_contradict_their_spec_leave_the_store_as_it_was(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.declare(WINDOW)

    with pytest.raises(ContentError, match="expected float32"):
        store.add([window(1), Sample("window", np.zeros((5, 2), np.float32), 0, 0, "f")])
    with pytest.raises(ContentError, match="cannot be stored"):
        store.add([Sample("new", np.zeros((5, 2), np.complex64), 0, 0, "f")])

    assert store.count("window") == 0
    assert set(store.specs()) == {"window"}


def test_a_declared_spec_without_samples_reads_as_an_empty_batch(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.declare(WINDOW)

    batch = store.read("window")

    assert batch.arrays.shape == (0, 6, 2)
    assert (len(batch.ids), batch.labels, store.last_id("window")) == (0, [], 0)


def test_a_spec_with_another_shape_needs_another_name(tmp_path: Path) -> None:
    opened(tmp_path / "s.db").declare(WINDOW)

    with pytest.raises(ContentError, match=r"window\.name"):
        opened(tmp_path / "s.db").declare(TensorSpec("window", "float32", (9, 2), "window"))


def test_an_unknown_spec_is_empty_to_count_and_an_error_to_read(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")

    assert store.count("nothing") == store.last_id("nothing") == 0
    with pytest.raises(ContentError, match="nothing"):
        store.read("nothing")


def test_old_samples_go_by_the_newest_sample_not_by_the_devices_clock(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db", max_age_s=100.0)
    store.add([window(n, seconds=n * 50) for n in range(5)])
    store.add([image(1, None)])

    assert store.read("window").arrays[:, 0, 0].tolist() == [2, 3, 4]
    assert store.count("image") == 1


def test_at_the_byte_bound_the_oldest_go_first(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = opened(path, max_bytes=256 * 1024)
    big = [Sample("big", np.full((64, 8), n, np.float32), n, n, "f") for n in range(400)]
    for start in range(0, 400, 20):
        store.add(big[start : start + 20])

    kept = store.read("big").arrays[:, 0, 0]
    assert 50 < len(kept) < 130
    assert kept.tolist() == list(range(400 - len(kept), 400))
    assert store.used_bytes() <= 256 * 1024
    store.close()
    assert path.stat().st_size < 2 * 256 * 1024


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(1, 3000), min_size=1, max_size=8), min_size=1, max_size=12),
    max_kib=st.integers(96, 256),
)
def test_the_bound_holds_for_samples_of_any_size(groups: list[list[int]], max_kib: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder) / "s.db", max_bytes=max_kib * 1024)
        for n, sizes in enumerate(groups):
            store.add([Sample(f"s{size}", np.zeros(size, np.float32), n, n, "f") for size in sizes])
            assert store.used_bytes() <= max_kib * 1024
        store.close()


def test_a_reader_sees_what_is_committed_and_cannot_write(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.add([window(1)])
    reader = opened(tmp_path / "s.db", read_only=True)

    store.add([window(2), image(5, 2)])

    assert reader.count("window") == 2
    assert reader.read("image").labels == [2]
    with pytest.raises(StorageError, match="reading only"):
        reader.add([window(3)])


def test_a_reader_in_another_process_sees_the_same(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    store.add([window(n) for n in range(3)])
    code = (
        "import sys; from pathlib import Path; from hedgerow.edge_agent.samples.store import SampleStore\n"
        "s = SampleStore(Path(sys.argv[1]), max_bytes=1, max_age_s=None, read_only=True)\n"
        "b = s.read('window'); print(b.arrays.sum(), b.ids.tolist())"
    )

    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.db")], capture_output=True, text=True, check=True
    )

    assert out.stdout.split(maxsplit=1) == ["36.0", "[1, 2, 3]\n"]


def test_there_is_nothing_to_read_before_the_first_write(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no sample store yet"):
        opened(tmp_path / "s.db", read_only=True)


def test_threads_may_share_a_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "s.db")
    threads = [
        threading.Thread(target=lambda base=base: [store.add([window(base + n)]) for n in range(20)])
        for base in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        store.count("window")

    assert store.count("window") == 60


@pytest.mark.parametrize("damage", ["garbage", "header", "middle"])
def test_a_damaged_file_is_moved_aside_and_a_fresh_one_started(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.db"
    store = opened(path)
    store.add([Sample("big", np.full((64, 8), n, np.float32), n, n, "f") for n in range(200)])
    store.close()
    with path.open("r+b") as file:
        if damage == "garbage":
            file.write(b"\xde\xad\xbe\xef" * 1000)
        elif damage == "header":
            file.seek(40)
            file.write(b"\xff" * 60)
        else:
            file.seek(8192)
            file.write(b"\xaa" * 4096 * 30)

    fresh = opened(path)

    assert fresh.moved_aside is not None
    assert fresh.moved_aside.exists()
    assert fresh.count("big") == 0
    assert fresh.add([window(1)]) == 1


def test_damage_does_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for n in range(3):
        path.write_bytes(b"not a database" * (100 + n))
        opened(path).close()

    assert len(list(tmp_path.glob("*damaged*"))) == 1


def test_damage_found_while_reading_is_told_and_replaced_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = opened(path)
    store.declare(WINDOW)
    store.add([Sample("big", np.full((64, 8), n, np.float32), n, n, "f") for n in range(200)])
    store.close()
    # A store that was closed properly and is large is not read through at opening: damage shows later.
    healthy = schema.QUICK_CHECK_BYTES
    schema.QUICK_CHECK_BYTES = 0  # type: ignore[misc]
    try:
        with path.open("r+b") as file:
            file.seek(4096 * 20)
            file.write(b"\xaa" * 4096 * 40)
        store = opened(path)
    finally:
        schema.QUICK_CHECK_BYTES = healthy  # type: ignore[misc]
    assert store.moved_aside is None

    with pytest.raises(schema.DamagedError, match=r"s\.db"):
        store.read("big")
    store.start_anew()

    assert store.add([window(1)]) == 1
    assert set(store.specs()) == {"big", "window"}


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    opened(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version=99")

    with pytest.raises(StorageError, match="newer version"):
        opened(path)

    assert path.exists()
    assert not list(tmp_path.glob("*damaged*"))


def test_another_programs_database_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE precious (x)")

    assert opened(path).moved_aside is not None


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    opened(tmp_path / "s.db").add([window(1)])

    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.errors import StorageError
from hedgerow.shared.specs import Sample
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SampleStore(Path(sys.argv[1]), max_bytes=10**9, max_age_s=None)
sample = lambda n: Sample("big", np.full((64, 8), n, np.float32), n, n, "f")
store.add([sample(n) for n in range(20)])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
n = 20
try:
    while n < 2000:
        store.add([sample(n)])
        n += 1
    print("never full")
except StorageError as error:
    batch = store.read("big")
    print("refused", len(batch.ids), n, bool((batch.arrays[:, 0, 0] == np.arange(n)).all()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add([sample(n)])
print("resumed", store.count("big") == n + 1)
"""


def test_when_the_file_cannot_grow_nothing_committed_is_lost(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "s.db")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    first, second = out.stdout.splitlines()
    word, stored, committed, intact = first.split()
    assert (word, intact) == ("refused", "True")
    assert stored == committed
    assert second == "resumed True"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        store = opened(disk / "s.db", max_bytes=10**9)
        n = 0
        with pytest.raises(StorageError, match="disk is full"):
            while n < 2000:
                store.add([Sample("big", np.full((64, 8), n, np.float32), n, n, "f")])
                n += 1
        assert store.read("big").arrays[:, 0, 0].tolist() == list(range(n))
        store.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.specs import Sample
store = SampleStore(Path(sys.argv[1]), max_bytes=2**22, max_age_s=None)
n = store.last_id("big")
while True:
    store.add([Sample("big", np.full((64, 8), n + k, np.float32), n + k, n + k, "f") for k in range(7)])
    n += 7
    print(n, flush=True)
"""


def test_kill_in_the_middle_of_writing_leaves_no_partial_sample(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for wanted in (3, 40, 11):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(wanted)]
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()

        store = opened(path)
        batch = store.read("big")
        assert store.moved_aside is None
        assert len(batch.ids) >= told[-1]
        assert len(batch.ids) % 7 == 0
        assert (batch.arrays == np.arange(len(batch.ids), dtype=np.float32)[:, None, None]).all()
        store.close()
