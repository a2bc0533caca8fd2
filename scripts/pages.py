"""What the scripts share that make a page of the documentation from the code: write it, or tell whether it is stale."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def write_or_check(name: str, text: str) -> int:
    """Write ``docs/<name>``; with ``--check`` only compare, white space apart, and return 1 if it is stale."""
    target = DOCS / name
    if "--check" not in sys.argv[1:]:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.exists() and target.read_text(encoding="utf-8").split() == text.split():
        return 0
    sys.stderr.write(f"docs/{name} is stale; make it anew with: python scripts/{Path(sys.argv[0]).name}\n")
    return 1


def cell(text: str) -> str:
    """Return ``text`` as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
