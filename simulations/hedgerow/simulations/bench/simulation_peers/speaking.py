"""How an engine's process is told what to do: one JSON object a line in, one a line out.

In by standard input, out by the descriptor that ``HEDGEROW_BENCH_REPLIES`` names, so that nothing an engine prints is in the
way. This module needs the standard library and numpy alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.simulations.bench.simulation_peers.task import Setup

REPLIES = "HEDGEROW_BENCH_REPLIES"


class Runner(Protocol):
    """One engine, set up to run rounds."""

    def configure(self, setup: Setup) -> None:
        """Go back to the first model and to round 1, and run as ``setup`` says from there."""

    def rounds(self, n: int) -> list[float]:
        """Run the next ``n`` rounds; return how many seconds each took."""

    def model(self) -> npt.NDArray[np.float32]:
        """Return the model now, float32 ``(n,)``."""


def commands() -> Iterator[dict[str, Any]]:
    """Yield what the parent asks until it closes the pipe or says ``end``."""
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "end":
            return
        yield asked


def carry_out(runner: Runner, asked: dict[str, Any]) -> dict[str, Any]:
    """Do one command and return the reply."""
    if asked["do"] == "configure":
        runner.configure(Setup(**asked["setup"]))
        return {}
    if asked["do"] == "rounds":
        return {"seconds": runner.rounds(asked["n"])}
    if asked["do"] == "model":
        with Path(asked["path"]).open("wb") as file:
            np.save(file, runner.model())
        return {}
    raise ValueError(f"no command {asked['do']!r}")


def reply(answer: dict[str, Any]) -> None:
    """Send one reply."""
    os.write(int(os.environ[REPLIES]), (json.dumps(answer) + "\n").encode())


def serve(runner: Runner) -> None:
    """Answer commands until the parent ends them. What an engine raises ends the process: its log says why."""
    for asked in commands():
        reply(carry_out(runner, asked))
