"""The units: what the watchdog asks for is what the agent does, and the sandbox leaves inference room."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from hedgerow.edge_agent.watchdog import Watchdog

FOLDER = Path(__file__).parents[2] / "firmware_configs" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))


class Repeatable(dict[str, str]):
    """Keeps every value of a key that a unit may name several times."""

    def __setitem__(self, key: str, value: str | list[str]) -> None:
        if isinstance(value, list) and key in self:
            self[key].extend(value)  # type: ignore[attr-defined]
        else:
            super().__setitem__(key, value)  # type: ignore[assignment]


def load(path: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(dict_type=Repeatable, strict=False, empty_lines_in_values=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    return unit


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_restarts_is_sandboxed_and_lets_engines_compile(path: Path) -> None:
    service = load(path)["Service"]

    assert service["Restart"] == "always"
    assert service["NoNewPrivileges"] == service["ProtectHome"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"].strip() == ""
    assert "MemoryDenyWriteExecute" not in service
    assert service["User"] != "root"


def test_the_agents_watchdog_is_one_that_the_agent_feeds() -> None:
    service = load(FOLDER / "hedgerow-agent.service")["Service"]

    assert service["Type"] == "notify"
    asked = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": str(int(service["WatchdogSec"]) * 1_000_000)}
    assert Watchdog(asked).interval_s == 60.0


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_nothing_to_say(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on PATH")
    # The program is not installed here; everything else is judged as it is shipped.
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/hedgerow/bin/hedgerow", "/bin/true"))

    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True
    )

    assert [line for line in (found.stdout + found.stderr).splitlines() if path.name in line] == []
    assert found.returncode == 0
