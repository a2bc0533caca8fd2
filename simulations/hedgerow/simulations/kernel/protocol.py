"""What a kernel does: train devices from a base model, each exactly as a device's own trainer would.

The reference is ``hedgerow.edge_agent.trainer.sgd.PlainTrainer`` (and ``dpsgd.PrivateTrainer`` without noise): same batches,
same optimizer, updates equal within float32 rounding. Kernels differ in how fast they get there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.trainer.plan import StepPlan

Vector = npt.NDArray[np.float32]
KernelName = Literal["reference", "explicit", "stacked"]


class LocalJob(NamedTuple):
    """One device's local training from ``model``, float32 ``(n,)``.

    ``x`` float32 ``(k, *input)``, ``y`` int64 ``(k,)`` or None. ``order_seed`` seeds ``numpy.random.default_rng`` for the
    batches. ``private`` asks for DP-SGD; ``noise_key`` (non-negative integers below 2⁶³) then keys draws and noise, with the step's number.
    ``correction`` is added to every gradient (SCAFFOLD's c − cᵢ), float32 ``(n,)``. ``epochs`` overrides the job's.
    """

    model: Vector
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64] | None
    order_seed: tuple[int, ...]
    epochs: int | None = None
    private: StepPlan | None = None
    noise_key: tuple[int, ...] = ()
    correction: Vector | None = None


class LocalResult(NamedTuple):
    """``loss`` is the mean over the last epoch, NaN with DP-SGD or without examples; ``steps`` how many were taken."""

    loss: float
    steps: int


class Kernel(Protocol):
    """Trains with one recipe, parameters and training block, on one thread (or one GPU). Warm from call to call."""

    name: KernelName
    n_parameters: int
    group: int
    """How many jobs are best given at once: 1 for kernels that train one device after another."""

    def train(self, jobs: Sequence[LocalJob], out: npt.NDArray[np.float32]) -> list[LocalResult]:
        """Train every job and write new − old to ``out``, float32 ``(len(jobs), n)``. What one job gives depends on it alone, up to
        float32 rounding; the same jobs in the same call give the same bits.
        """

    def room(self, jobs: int) -> npt.NDArray[np.float32]:
        """Return memory for the updates of so many jobs, float32 ``(jobs, n)``, to be given as ``out``: it may be memory that the
        kernel needs anyhow. What is there stays until the next call of ``train``.
        """

    def forward(self, model: Vector, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the module's output for ``x``, in evaluation mode."""

    def losses(
        self, model: Vector, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float32]:
        """Return the recipe's loss per example, ``(k,)``, in evaluation mode."""
