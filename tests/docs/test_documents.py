"""What people read: links lead somewhere, commands exist, tests named exist, and nothing tells of somebody's machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\bhedgerow ((?:agent|bench|demo|doctor|job|model|server|simulate)\b[^`#|\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# Put together here, so that this file does not hold them.
FORBIDDEN = [
    "/" + "work/",
    "/tmp/" + "bash",
    "design" + ".md",
    "facts" + "/",
    "features" + ".md",
    "download." + "pytorch",
    "files." + "pythonhosted",
    "pypi" + ".org",
    "sub" + "agent",
    "the lead " + "commits",
]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made of their text."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def documented() -> dict[str, str]:
    """Return what the generated page says of each command, by its name."""
    parts = re.split(r"^#{2,3} hedgerow (.+)$", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    return {name.strip(): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def code_of(page: Path) -> str:
    """Return the page's code: fenced and indented blocks, and code inside lines."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(.+)$", text, flags=re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", text)
    return "\n".join([*fenced, *indented, *inline])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_shown_exist_with_their_options(page: Path) -> None:
    known = documented()
    for shown in COMMAND.findall(code_of(page)):
        words = shown.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        assert name in known, f"{page.name}: hedgerow {shown}"
        group = any(other.startswith(f"{name} ") for other in known)
        # ``simulate`` takes the name of a scenario where others take a command.
        group = group and f"`hedgerow {name} FILE" not in known[name]
        assert not group or len(words) == 1 or not words[1][0].islower(), f"{page.name}: hedgerow {shown}"
        lacking = [option for option in OPTION.findall(shown) if option not in known[name] + "--help"]
        assert not lacking, f"{page.name}: hedgerow {shown}: {lacking}"


def test_every_kind_of_bad_input_names_a_test_that_exists() -> None:
    rows = re.findall(
        r"\| `(tests/[\w/]+\.py)::(\w+)` \|$", (ROOT / "docs" / "bad-input.md").read_text(), re.MULTILINE
    )

    assert len(rows) >= 30
    for path, name in rows:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [int(page.name[:4]) for page in sorted((ROOT / "docs" / "adr").glob("*.md"))]

    assert numbers == list(range(1, len(numbers) + 1))


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_picture_is_small_enough_to_load() -> None:
    picture = ROOT / "docs" / "images" / "dashboard.png"

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000


def test_nothing_tells_of_a_machine_or_of_how_it_was_made() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so that ours cannot be told from the rest")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file() or path.suffix in (".png", ".npz", ".onnx", ".tflite"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {word}" for word in FORBIDDEN if word in text]
    assert not found
