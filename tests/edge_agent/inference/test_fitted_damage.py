"""A fitted file that a power cut or a bad disk left behind never keeps an agent from starting."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.inference.fitted_file import KEPT, FittedFile, prune
from hedgerow.shared.scoring import BaselineFitted, Fitted

VALUE = BaselineFitted((1.0, 2.0), (0.5, 0.25), 40)
WHOLE = msgspec.json.encode({"key": "k", "fitted": VALUE})
DAMAGE = {
    "nested": b'{"key": "k", "fitted":' + b"[" * 100_000,
    "nested and closed": b'{"key": "k", "fitted": {"median": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    "no text in the key": b'{"key": "\xff\xfe", "fitted": {}}',
    "no text in a name": b'{"\xff": 1, "key": "k", "fitted": {}}',
    "other type": b'{"key": "k", "fitted": [1]}',
    "number beyond a float": b'{"key": "k", "fitted": {"median": [1e999], "spread": [1], "windows": 4}}',
    "not a number": b'{"key": "k", "fitted": {"median": [NaN], "spread": [1], "windows": 4}}',
    "zeros": b"\0" * 4096,
    "half": WHOLE[: len(WHOLE) // 2],
    "twice": WHOLE * 2,
}


def file(folder: Path, kind: type = BaselineFitted) -> FittedFile:  # type: ignore[type-arg]
    return FittedFile(folder / "fitted.json", "k", kind)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_logged_and_counts_as_nothing_fitted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    (tmp_path / "fitted.json").write_bytes(DAMAGE[damage])

    assert file(tmp_path).read() is None
    assert "fitted.json cannot be used, fitting anew" in caplog.text


@pytest.mark.parametrize("end", range(0, len(WHOLE), 3))
def test_a_file_cut_off_anywhere_counts_as_nothing_fitted(tmp_path: Path, end: int) -> None:
    (tmp_path / "fitted.json").write_bytes(WHOLE[:end])

    assert file(tmp_path).read() is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(WHOLE) - 1), junk=st.binary(min_size=1, max_size=4))
def test_no_damage_raises(tmp_path: Path, at: int, junk: bytes) -> None:
    (tmp_path / "fitted.json").write_bytes(WHOLE[:at] + junk + WHOLE[at + len(junk) :])

    found = file(tmp_path).read()

    assert found is None or isinstance(found, BaselineFitted)


@given(
    median=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=6).map(tuple),
    windows=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_come_back_to_the_last_bit(tmp_path: Path, median: tuple[float, ...], windows: int) -> None:
    value = BaselineFitted(median, median, windows)
    file(tmp_path).write(value)

    assert file(tmp_path).read() == value


def test_a_folder_in_the_files_place_is_logged_both_ways(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "fitted.json").mkdir()

    assert file(tmp_path).read() is None
    file(tmp_path).write(VALUE)

    assert "cannot be used" in caplog.text and "cannot be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["fitted.json"], "no temporary file stays"


def test_a_write_that_fails_leaves_the_value_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path).write(VALUE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    file(tmp_path).write(BaselineFitted((9.0,), (9.0,), 1))

    assert file(tmp_path).read() == VALUE
    assert [path.name for path in tmp_path.iterdir()] == ["fitted.json"]


def test_a_value_of_another_kind_is_not_taken_for_this_one(tmp_path: Path) -> None:
    file(tmp_path).write(VALUE)

    assert file(tmp_path, Fitted).read() is None


def test_pruning_a_folder_that_is_not_there_or_short_is_harmless(tmp_path: Path) -> None:
    prune(tmp_path / "nowhere", "fitted-*.json")
    for n in range(KEPT):
        (tmp_path / f"fitted-{n}.json").touch()
    prune(tmp_path, "fitted-*.json")

    assert len(list(tmp_path.iterdir())) == KEPT


def test_what_cannot_be_pruned_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(KEPT + 1):
        (tmp_path / f"fitted-{n}.json").mkdir()

    prune(tmp_path, "fitted-*.json")

    assert "old fitted files stay" in caplog.text
