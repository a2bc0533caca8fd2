"""Pages made from the code are what the code says now, and say of every command what they must."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLI = ROOT / "docs" / "cli.md"


def sections() -> dict[str, str]:
    """Return each command's part of the page by its name."""
    parts = re.split(r"^#{2,3} hedgerow (.+)$", CLI.read_text(), flags=re.MULTILINE)
    return {name.strip(): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("script", ["api-page", "cli-page", "egress-page", "coverage-page"])
def test_a_generated_page_is_what_the_code_says(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    for name in ("scripts", "docs"):
        (tmp_path / name).mkdir()
    for name in ("pages.py", "coverage-page"):
        (tmp_path / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    (tmp_path / "docs" / "coverage.toml").write_bytes((ROOT / "docs" / "coverage.toml").read_bytes())
    command = [sys.executable, str(tmp_path / "scripts" / "coverage-page")]

    subprocess.run(command, check=True)
    page = tmp_path / "docs" / "coverage.md"
    assert page.read_text() == (ROOT / "docs" / "coverage.md").read_text()
    page.write_text(page.read_text().replace(" works ", " thin "))

    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docs/coverage.md is stale" in done.stderr


def test_every_command_group_is_on_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert set(project["entry-points"]["hedgerow.commands"]) <= {name.split()[0] for name in sections()}


@pytest.mark.parametrize("name", sorted(sections()))
def test_every_command_has_an_example(name: str) -> None:
    if any(other.startswith(f"{name} ") for other in sections()):
        pytest.skip("a group; its commands have theirs")

    assert re.search(rf"example:\s+`?hedgerow\s+{name}\b", sections()[name], flags=re.IGNORECASE)


def test_every_bench_and_the_demo_speak_json() -> None:
    spoken = {name: text for name, text in sections().items() if name.startswith(("bench ", "demo"))}

    assert len(spoken) >= 5
    assert all("--json" in text for text in spoken.values())
