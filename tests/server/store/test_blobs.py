"""A blob is there whole or not at all, and never another one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.store.blobs import Blobs
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import IntegrityError, StorageError


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def test_the_same_bytes_have_the_same_name_and_come_back(blobs: Blobs) -> None:
    digest = blobs.put(b"model")

    assert digest == sha256_hex(b"model") == blobs.put(memoryview(b"model"))
    assert blobs.get(digest) == b"model"
    assert blobs.has(digest)
    assert len([p for p in blobs.root.rglob("*") if p.is_file()]) == 1


def test_content_then_name_then_folder_reach_the_disk(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename survives a power cut only once its folder is on the disk too."""
    order: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(descriptor: int) -> None:
        order.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def seen_replace(path: Path, target: Path) -> Path:
        order.append(("rename", target.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    digest = blobs.put(b"model")

    names = [(what, "content" if name.startswith(f".{digest}") else name) for what, name in order]
    assert names == [
        ("sync", blobs.root.name),
        ("sync", "content"),
        ("rename", digest),
        ("sync", digest[:2]),
    ]


def test_a_damaged_blob_is_found_out(blobs: Blobs) -> None:
    digest = blobs.put(b"model")
    blobs.path(digest).write_bytes(b"mudel")

    with pytest.raises(IntegrityError, match="damaged"):
        blobs.get(digest)


def test_a_missing_blob_is_named(blobs: Blobs) -> None:
    with pytest.raises(StorageError, match="no blob 0000"):
        blobs.get("0" * 64)


@given(st.text(max_size=80).filter(lambda text: len(text) != 64))
def test_no_name_leads_outside_the_folder(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ValueError, match="SHA-256"):
        Blobs(Path(folder)).path(name)


def test_a_full_disk_is_an_error_that_names_the_folder(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(StorageError, match="No space left"):
        blobs.put(b"model")
    assert [p for p in blobs.root.rglob("*") if p.is_file()] == []
