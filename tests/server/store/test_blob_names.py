"""A blob's name is its hash and nothing else, and what is on the disk is never trusted without looking."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.store.blobs import Blobs
from hedgerow.shared.errors import IntegrityError, StorageError

GOOD = hashlib.sha256(b"x").hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.mark.parametrize(
    "name",
    [
        GOOD + "\n",
        "\n" + GOOD,
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "0",
        GOOD[:-1] + "/",
        "../" + GOOD[3:],
        "." * 64,
        "/" * 64,
        GOOD[:-1] + "g",
        GOOD[:-1] + "\x00",
        "٠" * 64,
        "",
    ],
    ids=repr,
)
def test_a_name_that_is_not_64_hex_digits_leads_nowhere(blobs: Blobs, name: str) -> None:
    for use in (blobs.path, blobs.has, blobs.get):
        with pytest.raises(ValueError, match="not a SHA-256"):
            use(name)


def test_a_long_name_is_not_repeated_whole_in_the_message(blobs: Blobs) -> None:
    with pytest.raises(ValueError, match="not a SHA-256") as caught:
        blobs.path("x" * 100_000)

    assert len(str(caught.value)) < 120


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_any_bytes_come_back_under_the_hash_that_anybody_would_reckon(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder))
        names = [blobs.put(content) for content in contents]

        assert names == [hashlib.sha256(content).hexdigest() for content in contents]
        assert [blobs.get(name) for name in names] == contents
        files = [path for path in blobs.root.rglob("*") if path.is_file()]
        assert {path.name for path in files} == set(names)
        assert all(path.parent.name == path.name[:2] for path in files)


@settings(max_examples=25)
@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_change_on_the_disk_is_found_out(content: bytes, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder))
        name = blobs.put(content)
        other = data.draw(st.binary(max_size=64).filter(lambda found: found != content))
        blobs.path(name).write_bytes(other)

        with pytest.raises(IntegrityError, match=f"blob {name[:12]}"):
            blobs.get(name)


def test_a_folder_in_a_blob_s_place_is_an_error_of_the_store(blobs: Blobs) -> None:
    blobs.path(GOOD).mkdir(parents=True)

    with pytest.raises(StorageError, match="no blob"):
        blobs.get(GOOD)


def test_the_folder_of_blobs_is_for_its_owner_alone(blobs: Blobs) -> None:
    assert blobs.root.stat().st_mode & 0o077 == 0


def test_many_writers_of_one_blob_leave_one_whole_file(blobs: Blobs) -> None:
    content = b"model" * 20_000
    together = threading.Barrier(6)
    names: list[str] = []

    def put() -> None:
        together.wait()
        names.append(blobs.put(content))

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(names) == {hashlib.sha256(content).hexdigest()}
    assert blobs.get(names[0]) == content
    assert len([path for path in blobs.root.rglob("*") if path.is_file()]) == 1


def test_a_second_store_over_the_same_folder_sees_the_same_blobs(blobs: Blobs) -> None:
    name = blobs.put(b"model")
    again = Blobs(blobs.root)

    assert again.has(name)
    assert again.get(name) == b"model"
    assert not again.has(GOOD)
