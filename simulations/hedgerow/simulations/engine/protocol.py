"""The seam between the simulation's loop and whatever trains: tasks in, one exact sum (or single updates) out.

Rounds count from 1. What a device does in a round is a function of its task, the base model and its examples alone:
batches are ordered by ``(job.seed, round, device)``, noise is keyed by ``(noise seed, round, device, step)``, so that neither
the number of workers nor who trained first shows in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.trainer.plan import StepPlan

Vector = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Attack(msgspec.Struct, frozen=True):
    """What a byzantine device does to its update (see ``ByzantineSpec``); ``label-flip`` acts on its examples."""

    kind: Literal["sign-flip", "scale", "noise", "nan", "label-flip"]
    scale: float = 1.0


class Task(msgspec.Struct, frozen=True):
    """One device's training. ``version`` indexes the batch's models; ``epochs`` overrides the job's (partial work).

    ``weight`` is what its update counts in the sum, fixed by the caller (1, or the number of examples, or less for a stale
    one). ``private`` is DP-SGD's plan in mode ``example``; ``noise_seed`` keys its noise and draws, the scenario's seed if None.
    ``clip_norm_l2`` clips the whole update (central modes).
    """

    device: int
    round: int
    version: int = 0
    weight: float = 1.0
    epochs: int | None = None
    private: StepPlan | None = None
    clip_norm_l2: float | None = None
    attack: Attack | None = None
    noise_seed: int | None = None


class Batch(NamedTuple):
    """Tasks that may run side by side. ``want`` is ``sum``, or ``each`` for strategies that look at single updates.

    ``control`` is SCAFFOLD's server control variate, float32 ``(n,)``, else None.
    """

    models: Sequence[Vector]
    tasks: Sequence[Task]
    want: Literal["sum", "each"] = "sum"
    control: Vector | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of one task. ``rejected`` names why its update does not count (``non-finite``, ``over-norm``, …), as the
    server's rules would. ``loss`` is the last epoch's mean (None with DP-SGD), ``norm_l2`` the update's before packing,
    ``n_bytes`` what it takes packed, ``train_s`` the processor time it took here.
    """

    device: int
    n_samples: int
    loss: float | None
    norm_l2: float
    n_bytes: int
    train_s: float
    rejected: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a batch came to: ``total`` is the exact weighted sum of what counts, float64 ``(n,)``, with ``weight`` and ``count``.

    ``updates`` holds each counted task's update by device with ``want = "each"``, else it is empty. ``control`` is the sum of the
    devices' control changes with SCAFFOLD. ``outcomes`` are in the order of the tasks. ``total`` and ``control`` may be the engine's
    own memory: they hold until it trains again, and whoever got them may write there.
    """

    total: Doubles
    weight: float
    count: int
    outcomes: tuple[Outcome, ...]
    updates: dict[int, Vector]
    control: Doubles | None = None


class DeviceScores(NamedTuple):
    """Evaluation on the devices: ``loss`` and ``score`` float64 ``(k,)`` of devices ``(k,)``; score is accuracy where there are
    labels, else NaN.
    """

    devices: npt.NDArray[np.int64]
    loss: Doubles
    score: Doubles


class Engine(Protocol):
    """Trains. Used as a context manager; ``close`` leaves no process behind, also after an exception or Ctrl-C."""

    name: str

    def open(self) -> dict[str, str]:
        """Start, choose among its paths, and return what it chose (kept in the run's record, and replayed from there)."""

    def hold(self, model: Vector) -> Vector:
        """Return ``model``, float32 ``(n,)``, copied to memory from which the open engine trains and scores without another copy.

        It is the caller's to change between calls, until the engine is closed; holding again overwrites it.
        """

    def train(self, batch: Batch) -> Answer:
        """Train all tasks. A worker that dies is replaced and its tasks are done again; raises EngineError if that fails too."""

    def score(self, model: Vector) -> dict[str, float]:
        """Return the recipe's scores of ``model`` on the held-out set."""

    def score_devices(self, model: Vector, devices: Sequence[int], round: int) -> DeviceScores:
        """Return scores on the devices' own held-out examples (personal layers in place where devices have some)."""

    def close(self) -> None:
        """End all workers. Idempotent."""
