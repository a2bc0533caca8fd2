"""Any order of publications, as one device that follows them sees it: always valid, never backwards."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.delivery import Backend
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from hedgerow.server.delivery.files import link_or_copy
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.shared.errors import StorageError

CHANGES = ["release", "release", "yank", "allow", "root", "targets", "snapshot", "timestamp", "sleep"]


class FolderFetcher(FetcherInterface):
    """Reads the repository's folder as a device would through HTTPS."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url.removeprefix("folder:"))
        if not path.is_file():
            raise DownloadHTTPError("not here", 404)
        return iter([path.read_bytes()])


class Follower:
    """A device that keeps its metadata from refresh to refresh."""

    def __init__(self, backend: Backend, cache: Path) -> None:
        self._folder = f"folder:{backend.repository.folder}"
        self._cache = cache
        self._root = backend.repository.root_bytes()
        cache.mkdir()

    def sees(self, versions: range) -> set[int]:
        """Refresh and return which versions of ``pump`` are signed."""
        client = Updater(
            str(self._cache), f"{self._folder}/metadata", fetcher=FolderFetcher(), bootstrap=self._root
        )
        client.refresh()
        return {v for v in versions if client.get_targetinfo(f"bundles/pump/{v}/manifest.json") is not None}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(CHANGES), max_size=8))
def test_a_device_that_follows_sees_exactly_what_is_published(changes: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = Backend(Path(folder) / "server")
        follower = Follower(backend, Path(folder) / "cache")
        published: set[int] = set()
        latest = 0
        for change in changes:
            if change == "release":
                latest += 1
                backend.release(files={"m.onnx": b"%d" % latest})
                published.add(latest)
            elif change == "yank" and published:
                backend.repository.yank("pump", min(published))
                published.discard(min(published))
            elif change == "allow" and published:
                backend.repository.allow_rollback("pump", max(published))
            elif change == "sleep":
                backend.moved_s += 0.6 * 86_400
                backend.repository.resign()
            elif change in ("root", "targets", "snapshot", "timestamp"):
                backend.repository.rotate(change)
            assert follower.sees(range(1, latest + 2)) == published
        backend.close()


def test_a_published_file_shares_the_blobs_disk_space(tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"x")
    link_or_copy(source, tmp_path / "deep" / "er" / "file")

    assert (tmp_path / "deep/er/file").samefile(source)
    link_or_copy(source, tmp_path / "deep" / "er" / "file")
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_disks_cannot_share_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_paths: object) -> None:
        raise OSError(code, os.strerror(code))

    source = tmp_path / "blob"
    source.write_bytes(b"x")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, tmp_path / "out" / "file")

    assert (tmp_path / "out" / "file").read_bytes() == b"x"
    assert not (tmp_path / "out" / "file").samefile(source)


def test_a_full_disk_is_told_with_the_path_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = tmp_path / "blob"
    source.write_bytes(b"x")
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match=r"out/file.*No space left"):
        link_or_copy(source, tmp_path / "out" / "file")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fills_while_publishing_leaves_the_old_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend(tmp_path / "server")
    follower = Follower(backend, tmp_path / "cache")
    backend.release(files={"m.onnx": b"1"})
    real = os.fsync
    metadata = backend.repository.folder / "metadata"

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().parent == metadata:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            backend.release(files={"m.onnx": b"2"})
    assert follower.sees(range(1, 4)) == {1}
    assert not [path for path in metadata.iterdir() if path.name.startswith(".")]

    backend.repository.publish(backend.registry.open("pump", 2))
    assert follower.sees(range(1, 4)) == {1, 2}
    backend.close()


def test_keys_that_are_not_here_are_left_out(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    made = keys.create("targets").public_key.keyid

    assert [signer.public_key.keyid for signer in keys.signers("targets", [made, "f" * 64])] == [made]
    assert keys.signers("snapshot", [made]) == []
    keys.forget("targets", made)
    keys.forget("targets", made)
    assert keys.signers("targets", [made]) == []


def test_a_folder_for_keys_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot store the key"):
        KeyFolder(tmp_path / "file" / "keys").create("root")
