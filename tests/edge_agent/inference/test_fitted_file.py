from __future__ import annotations

import os
from pathlib import Path

import pytest

from hedgerow.edge_agent.inference.fitted_file import KEPT, MAX_BYTES, FittedFile, prune
from hedgerow.shared.scoring import BaselineFitted

VALUE = BaselineFitted((1.0, 2.0), (0.5, 0.25), 40)


def file(folder: Path, key: str = "bundle/profile/1") -> FittedFile[BaselineFitted]:
    return FittedFile(folder / "fitted.json", key, BaselineFitted)


def test_what_is_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    file(tmp_path / "new" / "folder").write(VALUE)

    assert file(tmp_path / "new" / "folder").read() == VALUE
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["fitted.json"]


def test_a_value_fitted_for_something_else_counts_as_none(tmp_path: Path) -> None:
    file(tmp_path, "bundle/profile/1").write(VALUE)

    assert file(tmp_path, "bundle/profile/2").read() is None


def test_nothing_there_is_none_and_nothing_to_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert file(tmp_path).read() is None
    assert caplog.records == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"key": 3, "fitted": {}}',
        b'{"key": "bundle/profile/1", "fitted": {}}',
        b'{"key": "bundle/profile/1", "fitted": {"median": ["x"], "spread": [], "windows": 1}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_logged_and_fitted_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    (tmp_path / "fitted.json").write_bytes(data)

    assert file(tmp_path).read() is None
    assert "fitting anew" in caplog.text
    file(tmp_path).write(VALUE)
    assert file(tmp_path).read() == VALUE


def test_an_over_size_file_counts_as_none(tmp_path: Path) -> None:
    file(tmp_path).write(VALUE)
    path = tmp_path / "fitted.json"
    path.write_bytes(path.read_bytes() + b" " * MAX_BYTES)

    assert file(tmp_path).read() is None


def test_a_disk_that_refuses_is_logged_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "folder").write_text("a file where a folder should be")

    file(tmp_path / "folder").write(VALUE)

    assert "cannot be written" in caplog.text


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    for n in range(KEPT + 3):
        path = tmp_path / f"fitted-{n}.json"
        path.write_text("{}")
        os.utime(path, ns=(n * 10**9, n * 10**9))
    (tmp_path / "confirmed.json").write_text("{}")

    prune(tmp_path, "fitted-*.json")

    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["confirmed.json", *(f"fitted-{n}.json" for n in range(3, KEPT + 3))]
