"""Who may import whom, and that nobody outside the adapters touches Flower's internals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY = {
    "shared": {"shared"},
    "models": {"shared", "models"},
    "edge_agent": {"shared", "edge_agent"},
    "server": {"shared", "models", "server"},
    "simulations": {"shared", "models", "edge_agent", "server", "simulations"},
}
FLOWER = (
    "server/flower",
    "server/strategies",
    "trainer/fleet",
    "flower_proxy",
    "simulations/bench",
    "simulations/flower",
)


def files(root: str) -> Iterator[Path]:
    yield from sorted((ROOT / root / "hedgerow").rglob("*.py"))


def imported(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = [*_top_level(tree)] if top_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.Try):
            yield from node.body
        yield node


@pytest.mark.parametrize("root", sorted(MAY))
def test_a_part_imports_only_what_it_may(root: str) -> None:
    wrong = []
    for path in files(root):
        allowed = MAY[root] | ({"models"} if root == "edge_agent" and "trainer" in path.parts else set())
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "hedgerow" and len(parts) > 1 and parts[1] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")

    assert wrong == []


def test_flower_is_imported_by_its_adapters_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for root in MAY
        for path in files(root)
        for name in imported(path)
        if name.split(".")[0] == "flwr" and not any(part in path.as_posix() for part in FLOWER)
    ]

    assert wrong == []


def test_nothing_outside_the_tests_validates_with_assert() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for root in MAY
        for path in files(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]

    assert found == []
