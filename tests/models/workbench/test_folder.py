from __future__ import annotations

import os
from pathlib import Path

import pytest

from hedgerow.models.workbench.folder import write_folder
from hedgerow.shared.errors import StorageError

FILES = {"a.txt": b"one", "b.bin": b"\0" * 1000}


def test_files_appear_whole_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "bundle"

    assert write_folder(str(target), FILES) == 1003
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]
    assert target.stat().st_mode & 0o777 == 0o755, "other users of the server's group read it"


def test_a_folder_that_exists_is_never_touched(tmp_path: Path) -> None:
    write_folder(str(tmp_path / "b"), {"a.txt": b"old"})

    with pytest.raises(StorageError, match="exists already"):
        write_folder(str(tmp_path / "b"), FILES)
    assert (tmp_path / "b" / "a.txt").read_bytes() == b"old"


def test_a_disk_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_folder(str(tmp_path / "b"), FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(StorageError, match=r"file.*cannot be written"):
        write_folder(str(tmp_path / "file" / "b"), FILES)
