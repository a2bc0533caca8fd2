from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.shared.errors import StorageError
from hedgerow.shared.files import point_to, write_atomically


def test_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "key"
    write_atomically(target, b"one", 0o600)
    write_atomically(target, b"two", 0o600)

    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in target.parent.iterdir()] == ["key"]


def test_failed_write_names_the_path_and_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="inside"):
        write_atomically(tmp_path / "file" / "inside", b"x")

    target = tmp_path / "folder"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(StorageError, match="folder"):
        write_atomically(target, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_link_is_switched_relative_so_that_the_tree_can_move(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("a", "b"):
        write_atomically(home / "all" / name / "file", name.encode())
    point_to(home / "now", home / "all" / "a")
    point_to(home / "now", home / "all" / "b")
    home.rename(tmp_path / "moved")

    assert (tmp_path / "moved" / "now" / "file").read_bytes() == b"b"
    with pytest.raises(StorageError, match="now"):
        point_to(tmp_path / "nowhere" / "now", tmp_path / "moved")
