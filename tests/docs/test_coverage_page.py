"""The coverage page says what is true: every row is there, every test it names exists, the page is made from the file."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = tomllib.loads((ROOT / "docs" / "coverage.toml").read_text())["row"]


def test_all_rows_of_the_mission_are_listed() -> None:
    assert [row["number"] for row in ROWS] == list(range(1, 100))


@pytest.mark.parametrize("row", [row for row in ROWS if "test" in row], ids=lambda row: str(row["number"]))
def test_the_test_that_shows_it_exists(row: dict[str, str]) -> None:
    path, _, name = row["test"].partition("::")

    assert (ROOT / path).is_file()
    assert f"def {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["status"] in ("thin", "later", "out")], ids=lambda r: str(r["number"])
)
def test_what_does_not_work_yet_says_why(row: dict[str, str]) -> None:
    assert len(row["note"]) >= 5


def test_the_page_is_made_from_the_file() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "coverage-page", "--check"], check=True)
