"""The five source roots stay one namespace: in the editable install, in the wheel and for every tool."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("server", "edge_agent", "shared", "models", "simulations")


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("root", ROOTS)
def test_no_init_file_hides_the_other_parts(root: str) -> None:
    assert not (ROOT / root / "hedgerow" / "__init__.py").exists()
    assert (ROOT / root / "hedgerow" / root / "__init__.py").exists()
    assert (ROOT / root / "hedgerow" / root / "py.typed").exists()


def test_every_package_folder_has_an_init_file() -> None:
    missing = [
        str(folder.relative_to(ROOT))
        for root in ROOTS
        for folder in (ROOT / root / "hedgerow" / root).rglob("*")
        if folder.is_dir() and list(folder.glob("*.py")) and not (folder / "__init__.py").exists()
    ]

    assert missing == []


def test_every_tool_names_the_same_five_roots() -> None:
    tool = pyproject()["tool"]
    roots = set(ROOTS)

    assert set(tool["hatch"]["build"]["dev-mode-dirs"]) == roots
    assert set(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == {f"{r}/hedgerow" for r in roots}
    assert set(tool["mypy"]["files"]) == roots | {"tests"}
    assert {Path(part).name for part in tool["mypy"]["mypy_path"].split(":")} >= roots
    assert set(tool["pytest"]["ini_options"]["pythonpath"]) >= roots
    assert set(tool["ruff"]["src"]) == roots | {"tests"}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(tmp_path: Path) -> None:
    build = "from hatchling.builders.wheel import WheelBuilder as B; import sys; print(*B(sys.argv[1]).build(directory=sys.argv[2], versions=['standard']))"
    subprocess.run([sys.executable, "-c", build, str(ROOT), str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())

    wanted = {
        str(file.relative_to(ROOT / root))
        for root in ROOTS
        for file in (ROOT / root / "hedgerow").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert wanted - packed == set()


def test_each_command_group_and_recipe_can_be_loaded() -> None:
    from importlib.metadata import entry_points

    for group in ("hedgerow.commands", "hedgerow.recipes"):
        entries = entry_points(group=group)
        assert len(entries) > 0
        for entry in entries:
            entry.load()
