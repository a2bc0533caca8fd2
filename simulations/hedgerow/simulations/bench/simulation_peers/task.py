"""What every engine of the benchmark is given: the same data, partition, cohorts, batches and first model.

A task is a folder with ``task.json`` and ``data.npz``. This module needs numpy alone: it is also run by the interpreter
that holds pfl-research.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_COHORT = 1_000_003
CHECK_STEPS = 2


@dataclass(frozen=True)
class Setup:
    """How rounds are run: ``cohort`` devices each; with ``private`` by DP-SGD of clip 1.

    ``noise`` is its noise multiplier. With ``whole`` each step takes all examples of the device, ``CHECK_STEPS`` of
    them: without noise nothing is random then, and engines can be compared.
    """

    cohort: int
    private: bool = False
    noise: float = 1.0
    whole: bool = False


@dataclass(frozen=True)
class PeerTask:
    """One workload. ``x`` float32 ``(total, *input)``, ``y`` int64 ``(total,)`` or None, device ``d`` holding
    ``offsets[d]:offsets[d + 1]``; ``model`` is the first model, float32 ``(n,)``. ``recipe`` and ``parameters`` are
    Hedgerow's names for what ``net`` describes.
    """

    net: dict[str, Any]
    recipe: str
    parameters: dict[str, Any]
    seed: int
    batch: int
    learning_rate: float
    x: Floats
    y: Ints | None
    offsets: Ints
    model: Floats

    @property
    def devices(self) -> int:
        """Return how many devices there are."""
        return len(self.offsets) - 1

    def count(self, device: int) -> int:
        """Return how many examples a device has."""
        return int(self.offsets[device + 1] - self.offsets[device])

    def cohort(self, round: int, size: int) -> list[int]:
        """Return who trains in a round, counted from 1."""
        if size >= self.devices:
            return list(range(self.devices))
        rng = np.random.default_rng((self.seed, _COHORT, round))
        return sorted(int(device) for device in rng.choice(self.devices, size, replace=False))

    def order(self, round: int, device: int) -> Ints:
        """Return the order of a device's examples in a round, int64 ``(n,)``: its batches are slices of it.

        The first draw is the one that a device's trainer gives to torch.
        """
        rng = np.random.default_rng((self.seed, round, device))
        rng.integers(2**63)
        return rng.permutation(self.count(device)).astype(np.int64)

    def samples(self, round: int, size: int) -> int:
        """Return how many examples a round trains on."""
        return sum(self.count(device) for device in self.cohort(round, size))

    def rows(self, round: int, device: int) -> Ints:
        """Return the rows of ``x`` that a device trains on in a round, in order."""
        return np.asarray(self.offsets[device] + self.order(round, device), np.int64)


def write_task(task: PeerTask, folder: Path) -> None:
    """Write a task to a folder that exists."""
    plain = {
        name: getattr(task, name)
        for name in ("net", "recipe", "parameters", "seed", "batch", "learning_rate")
    }
    (folder / "task.json").write_text(json.dumps(plain))
    arrays: dict[str, Any] = {"x": task.x, "offsets": task.offsets, "model": task.model}
    if task.y is not None:
        arrays["y"] = task.y
    np.savez(folder / "data.npz", **arrays)


def read_task(folder: Path) -> PeerTask:
    """Return the task in a folder."""
    plain = json.loads((folder / "task.json").read_text())
    with np.load(folder / "data.npz") as data:
        arrays = {name: data[name] for name in data.files}
    return PeerTask(
        **plain, x=arrays["x"], y=arrays.get("y"), offsets=arrays["offsets"], model=arrays["model"]
    )


def read_model(folder: Path) -> Floats:
    """Return the first model of the task in a folder, float32 ``(n,)``, without the rest."""
    with np.load(folder / "data.npz") as data:
        return np.asarray(data["model"], np.float32)
