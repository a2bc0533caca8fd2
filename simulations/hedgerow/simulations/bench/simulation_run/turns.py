"""Running the engines in turns: all alive, one at work, each the same rounds, so that load on the machine hits all alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, write_task
from hedgerow.simulations.bench.simulation_run.engines import LEAN, SGEMM, WITHOUT_DP, Starter
from hedgerow.simulations.bench.simulation_run.peer import Peer, PeerError
from hedgerow.simulations.bench.simulation_run.pss import PeakPss
from hedgerow.simulations.bench.simulation_run.workloads import Workload

T = TypeVar("T")
TOLERANCE = 1e-5
_START_S, _ROUND_S = 120.0, 120.0
_PRODUCTS = 3
_LONG_TURN_S = 30.0
"""An engine that takes longer for a turn gets no other one: the whole run stays within minutes."""


@dataclass
class Figures:
    """What one engine did in one workload: ``seconds`` of its timed rounds, the largest difference of its model to lean's
    after two rounds, peak PSS in bytes, or why there is nothing.
    """

    seconds: list[float] = field(default_factory=list)
    difference: float | None = None
    pss: int | None = None
    error: str | None = None


@dataclass
class Measured:
    """One workload, with or without DP-SGD. ``rounds`` are the numbers of the timed ones; ``products`` seconds of sgemm."""

    workload: Workload
    private: bool
    rounds: list[int]
    engines: dict[str, Figures]
    products: list[float] = field(default_factory=list)


class Family:
    """All engines on the data of one family, alive at once. ``first_round_s`` counts from the start of a process."""

    def __init__(self, task: PeerTask, folder: Path, starter: Starter, names: list[str]) -> None:
        self.task = task
        self.first_round_s: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self._folder, self._starter, self._names = folder, starter, names
        self._peers: dict[str, Peer] = {}

    def start(self, cohort: int) -> None:
        """Start the engines one after the other and let each run its first round."""
        write_task(self.task, self._folder)
        for name in (*self._names, SGEMM):
            tell(f"starting {name}")
            self._peers[name] = peer = self._starter.start(name, self._folder)
            self._try(name, lambda peer=peer: _first_round(peer, cohort))  # type: ignore[misc]
            if name not in self.errors:
                self.first_round_s[name] = time.perf_counter() - peer.started

    def end(self) -> None:
        """End all of them."""
        for peer in self._peers.values():
            peer.end()

    def measure(self, workload: Workload, private: bool, repeats: int) -> Measured:
        """Check that all come to the same model in two rounds, then time rounds in turns."""
        names = [name for name in self._names if not (private and name in WITHOUT_DP)]
        found = Measured(workload, private, [], {name: Figures() for name in names})
        self._check(found)
        setup = Setup(workload.cohort, private)
        for name in names:
            tell(f"{workload.name}{' dp' if private else ''}: {name} warms up")
            self._try(name, lambda name=name: self._configure(name, setup))  # type: ignore[misc]
            self._try(name, lambda name=name: self._peers[name].rounds(1, _ROUND_S))  # type: ignore[misc]
        for repeat in range(repeats):
            first = 2 + repeat * workload.turn
            found.rounds += range(first, first + workload.turn)
            turn = names[repeat % len(names) :] + names[: repeat % len(names)]
            for name in turn:
                self._time(found, name)
            products = self._try(SGEMM, lambda: self._peers[SGEMM].rounds(_PRODUCTS, _ROUND_S))
            found.products += products or []
        for name in names:
            found.engines[name].error = self.errors.get(name)
        return found

    def _time(self, found: Measured, name: str) -> None:
        turn = found.workload.turn
        if sum(found.engines[name].seconds) > _LONG_TURN_S:
            return
        seconds = self._try(name, lambda: self._peers[name].rounds(turn, turn * _ROUND_S))
        if seconds is not None:
            found.engines[name].seconds += seconds
            tell(
                f"{found.workload.name}{' dp' if found.private else ''}: {name} {min(seconds):.4f} s a round"
            )

    def _check(self, found: Measured) -> None:
        """Run two rounds in which nothing is random but what all share, and compare models; memory is looked at here."""
        setup = Setup(found.workload.cohort, found.private, noise=0.0, whole=found.private)
        models: dict[str, npt.NDArray[np.float32]] = {}
        for name, figures in found.engines.items():
            model = self._try(name, lambda name=name, figures=figures: self._two_rounds(name, setup, figures))  # type: ignore[misc]
            if model is not None:
                models[name] = model
        if not models:
            return
        reference = models.get(LEAN, next(iter(models.values())))
        for name, model in models.items():
            found.engines[name].difference = float(np.abs(model - reference).max())

    def _two_rounds(self, name: str, setup: Setup, figures: Figures) -> npt.NDArray[np.float32]:
        peer = self._peers[name]
        self._configure(name, setup)
        with PeakPss(peer.pid) as peak:
            peer.rounds(2, 2 * _ROUND_S)
        figures.pss = peak.bytes_
        return peer.model(self._folder / f"{name}.npy", _ROUND_S)

    def _configure(self, name: str, setup: Setup) -> None:
        self._peers[name].configure(setup, _ROUND_S)

    def _try(self, name: str, action: Callable[[], T]) -> T | None:
        """Do something with an engine; one that fails is ended, and its rows say why."""
        if name in self.errors:
            return None
        try:
            return action()
        except (PeerError, OSError) as error:
            self.errors[name] = str(error)
            tell(f"{name} failed: {str(error)[-400:]}")
            self._peers[name].end()
            return None


def _first_round(peer: Peer, cohort: int) -> None:
    peer.configure(Setup(cohort), _START_S)
    peer.rounds(1, _START_S)


@contextmanager
def running(
    task: PeerTask, folder: Path, starter: Starter, names: list[str], cohort: int
) -> Iterator[Family]:
    """Start a family's engines; all are ended afterwards, also when something raises or is interrupted."""
    family = Family(task, folder, starter, names)
    try:
        family.start(cohort)
        yield family
    finally:
        family.end()


def tell(line: str) -> None:
    """Say on standard error what is being done."""
    sys.stderr.write(f"  {line}\n")
    sys.stderr.flush()
