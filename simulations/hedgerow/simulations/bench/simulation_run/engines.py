"""The engines by name: the command that starts each, and what it needs in its environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hedgerow.simulations.bench.simulation_run.peer import Peer

_PACKAGE: Final = "hedgerow.simulations.bench.simulation_peers"
_SOURCES: Final = Path(__file__).resolve().parent.parent / "simulation_peers"
_FOR_PFL: Final = ("nets.py", "task.py", "speaking.py", "pfl_run.py")
LEAN: Final = "lean"
SGEMM: Final = "sgemm"
PLAIN: Final = "plain"
ENGINES: Final = {
    LEAN: "ours, a process a worker",
    PLAIN: "plain PyTorch loop, one thread",
    "plain-threads": "plain PyTorch loop, torch's default threads",
    "flower": "Flower on Ray, an actor a worker",
    "pfl": "pfl-research, a process a worker",
    "pfl-1": "pfl-research, one process",
}
WITHOUT_DP: Final = frozenset({"pfl", "pfl-1", "plain-threads"})
"""pfl has no per-example DP-SGD; more threads for the plain loop say nothing new there."""


@dataclass(frozen=True)
class Starter:
    """Starts engines with so many ``workers``; ``pfl_python`` is the interpreter that holds pfl-research, if any."""

    workers: int
    pfl_python: Path | None = None

    def names(self, wanted: Sequence[str] | None = None) -> list[str]:
        """Return the engines that can be started, those of ``wanted`` if given; lean is always first."""
        able = [name for name in ENGINES if self.pfl_python is not None or not name.startswith("pfl")]
        return [name for name in able if wanted is None or name in wanted or name == LEAN]

    def start(self, name: str, folder: Path) -> Peer:
        """Start an engine on the task in ``folder``; its log is written there."""
        log = folder / f"{name}.log"
        threads = str(self.workers)
        if name == LEAN:
            return Peer(_command("lean_run", folder, threads), _environment(), log)
        if name == SGEMM:
            return Peer(_command("sgemm", folder, threads), _environment(OMP_NUM_THREADS=threads), log)
        if name == "flower":
            return Peer(_command("flower_run", folder, threads), _environment(), log)
        if name.startswith("plain"):
            count = "1" if name == PLAIN else "0"
            return Peer(_command("plain", folder, count), _environment(), log)
        return self._start_pfl(name, folder, log)

    def _start_pfl(self, name: str, folder: Path, log: Path) -> Peer:
        """Start pfl-research with copies of the few modules that it needs: its interpreter has no Hedgerow."""
        root = folder / "for-pfl"
        package = root.joinpath(*_PACKAGE.split("."))
        package.mkdir(parents=True, exist_ok=True)
        for source in _FOR_PFL:
            shutil.copy(_SOURCES / source, package / source)
        count = str(self.workers) if name == "pfl" else "1"
        command = [str(self.pfl_python), "-m", f"{_PACKAGE}.pfl_run", str(folder), count]
        return Peer(command, _environment(PYTHONPATH=str(root), OMP_NUM_THREADS="1"), log)


def _command(module: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", f"{_PACKAGE}.{module}", str(folder), *options]


def _environment(**more: str) -> dict[str, str]:
    """Return the surroundings of every engine: nothing is reported anywhere, threads are what the engine sets."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    quiet = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }
    return {**kept, **quiet, **more}
