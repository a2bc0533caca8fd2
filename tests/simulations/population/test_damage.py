"""Files from anywhere: whatever the bytes, a reader gives an array or says what is wrong; nothing else comes out of it."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.shared.errors import ContentError
from hedgerow.simulations.population.sources.csv_table import numbers, read_table
from hedgerow.simulations.population.sources.idx import read_idx
from hedgerow.simulations.population.sources.npz import _load
from hedgerow.simulations.population.sources.pixels import read_picture

PIXELS = (np.arange(60) * 4).astype(np.uint8)
IDX = struct.pack(">HBB3I", 0, 8, 3, 3, 4, 5) + PIXELS.tobytes()
PGM = b"P5\n10 6\n255\n" + PIXELS.tobytes()
CSV = b"a,b\n1,2\n3.5,-4e3\n"


def archive() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x=PIXELS.reshape(6, 10), y=np.arange(6))
    return file.getvalue()


def read_csv(path: Path) -> object:
    return numbers(read_table(path, ","), ("a", "b"), path)


READERS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "a.idx": (IDX, read_idx),
    "a.idx.gz": (gzip.compress(IDX, mtime=0), read_idx),
    "a.pgm": (PGM, lambda path: read_picture(path, 1)),
    "a.csv": (CSV, read_csv),
    "a.npz": (archive(), _load),
}
MANY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", READERS)
def test_the_whole_file_is_read(tmp_path: Path, name: str) -> None:
    data, read = READERS[name]
    (tmp_path / name).write_bytes(data)

    found: Any = read(tmp_path / name)
    if isinstance(found, dict):
        assert np.array_equal(found["x"].ravel(), PIXELS)
    elif name == "a.csv":
        assert np.array_equal(np.asarray(found), [[1.0, 2.0], [3.5, -4000.0]])
    else:
        assert np.array_equal(np.asarray(found).ravel(), PIXELS)


@pytest.mark.parametrize("name", READERS)
@MANY
@given(data=st.data())
def test_a_damaged_file_is_refused_or_still_an_array(tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole, read = READERS[name]
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    path = tmp_path / name
    path.write_bytes(bytes(broken[: cut or None]))

    try:
        read(path)
    except ContentError as error:
        assert name in str(error)


@pytest.mark.parametrize("name", READERS)
@MANY
@given(junk=st.binary(max_size=300))
def test_junk_is_refused_by_path(tmp_path: Path, name: str, junk: bytes) -> None:
    _, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(junk)

    try:
        read(path)
    except ContentError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    _, read = READERS[name]

    with pytest.raises(ContentError, match="cannot be read"):
        read(tmp_path / name)


def test_a_head_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.idx"
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 30_000, 200, 200) + bytes(100))

    with pytest.raises(ContentError, match="100 bytes of values; expected 1200000000"):
        read_idx(path)
