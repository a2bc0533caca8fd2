"""The stacked kernel: many devices trained side by side, each layer one batched gemm, for models too small for a core.

Devices are sorted by their number of steps and leave one after another, so that none is padded to the longest; a short last
batch is filled up with rows of weight zero. Written for any torch device, and tried on the CPU alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.compiled import compile_recipe, grad_mode
from hedgerow.simulations.kernel.descent import Descent
from hedgerow.simulations.kernel.evaluate import Evaluator
from hedgerow.simulations.kernel.private_stack import PrivateRounds
from hedgerow.simulations.kernel.program import Programs
from hedgerow.simulations.kernel.proof import prove_gradient
from hedgerow.simulations.kernel.protocol import KernelName, LocalJob, LocalResult, Vector
from hedgerow.simulations.kernel.schedule import Rounds, Table, step_counts

Floats = npt.NDArray[np.float32]
GROUP = 64
"""Devices at once: gemms this small gain nothing beyond, and 64 models of 10 000 values still fit a core's cache."""


class StackedKernel:
    """See ``protocol.Kernel``. Memory: five models for each of ``group`` devices, and what layers hold for their batches;
    nothing of it before the first training, so that processes forked until then have it once each.
    """

    name: KernelName = "stacked"

    def __init__(
        self,
        recipe: Recipe,
        parameters: Parameters,
        training: TrainingSpec,
        device: str = "cpu",
        group: int = GROUP,
    ) -> None:
        """Compile. Raises UnsupportedError for what has no kernel, or gives another gradient than autograd."""
        self.group = group
        self._compiled = compile_recipe(recipe, parameters)
        self._device = torch.device(device)
        self._spec = training
        self.n_parameters = self._compiled.network.n_parameters
        self._rows = np.empty((0, self.n_parameters), np.float32)
        self._evaluator = Evaluator(recipe, parameters, device)
        self._ready = False
        bank = Bank(self._compiled.network, min(2, group), self._device)
        programs = Programs(self._compiled, bank, self._device)
        prove_gradient(recipe, parameters, self._compiled, bank, programs, min(2, group))

    def train(self, jobs: Sequence[LocalJob], out: Floats) -> list[LocalResult]:
        """Train the jobs ``group`` at a time, in the order given, plain and private ones apart; see ``protocol.Kernel``."""
        self._make()
        results: dict[int, LocalResult] = {}
        plain = [n for n, job in enumerate(jobs) if job.private is None]
        private = [n for n, job in enumerate(jobs) if job.private is not None]
        with grad_mode(self._compiled.loss):
            for kind in (plain, private):
                for start in range(0, len(kind), self.group):
                    chosen = kind[start : start + self.group]
                    found = self._together([jobs[n] for n in chosen], chosen, out)
                    results.update(zip(chosen, found, strict=True))
        return [results[n] for n in range(len(jobs))]

    def room(self, jobs: int) -> Floats:
        """Return memory for updates, the same at each call; see ``protocol.Kernel``."""
        if len(self._rows) < jobs:
            self._rows = np.empty((jobs, self.n_parameters), np.float32)
        return self._rows[:jobs]

    def _make(self) -> None:
        if not self._ready:
            self._bank = Bank(self._compiled.network, self.group, self._device)
            self._descent = Descent(self._spec, self._bank.blocks)
            self._programs = Programs(self._compiled, self._bank, self._device)
            self._ready = True

    def forward(self, model: Vector, x: Floats) -> Floats:
        """Return the module's output for ``x``, in evaluation mode."""
        return self._evaluator.forward(model, x)

    def losses(self, model: Vector, x: Floats, y: npt.NDArray[np.int64] | None) -> Floats:
        """Return the recipe's loss per example, ``(k,)``, in evaluation mode."""
        return self._evaluator.losses(model, x, y)

    def _together(self, jobs: list[LocalJob], rows: list[int], out: Floats) -> list[LocalResult]:
        """Train one group, all plain or all private; the device with most steps comes first."""
        steps = step_counts(jobs, self._spec)
        order = np.argsort(-steps, kind="stable")
        sorted_jobs = [jobs[n] for n in order]
        base = self._stack([job.model for job in sorted_jobs])
        self._bank.load(base)
        self._descent.begin(self._bank.split(base), self._corrections(sorted_jobs))
        table = Table(sorted_jobs, self._compiled.loss, self._compiled.network.input_shape, self._device)
        if sorted_jobs[0].private is None:
            losses = self._plain(sorted_jobs, steps[order], table)
        else:
            rounds = PrivateRounds(sorted_jobs, self._compiled, self._bank, self._programs)
            rounds.run(table, self._descent, self._spec.batch_size)
            losses = np.full(len(jobs), np.nan)
        self._leave(base, out, [rows[n] for n in order])
        place = np.argsort(order)
        return [LocalResult(float(losses[place[n]]), int(steps[n])) for n in range(len(jobs))]

    def _leave(self, base: torch.Tensor, out: Floats, rows: list[int]) -> None:
        """Write new − ``base`` ``(k, n)`` to the ``rows`` of ``out``; where orders are the same, block by block while it is in cache."""
        if not self._compiled.layout.plain:
            self._compiled.layout.outward_rows(self._bank.minus(base), out, rows)
            return
        for block, before in zip(self._bank.blocks, self._bank.split(base), strict=True):
            moved = torch.sub(block.values[: len(rows)], before)
            out[rows, block.at : block.at + before.shape[1]] = moved.cpu().numpy()

    def _plain(
        self, jobs: list[LocalJob], steps: npt.NDArray[np.int64], table: Table
    ) -> npt.NDArray[np.float64]:
        """Return each device's mean loss over its last epoch, NaN where it took no step."""
        rounds = Rounds(jobs, self._spec, steps, table.starts, table.blank)
        scales = torch.from_numpy(rounds.scales()).to(self._device)
        blank = scales == 0
        last = torch.from_numpy(rounds.last_epoch()).to(self._device)
        total = torch.zeros(len(jobs), dtype=torch.float64, device=self._device)
        for number, active in enumerate(rounds.active):
            program = self._programs.get(active, rounds.rows, self.group * rounds.rows)
            index = torch.from_numpy(rounds.window(number)).to(self._device)
            target = table.fill(program.x, index)
            part = rounds.part(number)
            program.gradient(target, scales[part].view(-1, 1))
            if rounds.any_last[number]:
                found = self._compiled.loss.values().masked_fill(blank[part].view(-1), 0.0)
                sums = found.view(active, -1).sum(1, dtype=torch.float64)
                total[:active].addcmul_(sums, last[part])
            self._descent.step(active)
        counts = np.array([len(job.x) for job in jobs], np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(steps > 0, total.cpu().numpy() / counts, np.nan)

    def _corrections(self, jobs: list[LocalJob]) -> Sequence[torch.Tensor] | None:
        if all(job.correction is None for job in jobs):
            return None
        zero = np.zeros(self.n_parameters, np.float32)
        rows = [zero if job.correction is None else job.correction for job in jobs]
        return self._bank.split(self._stack(rows))

    def _stack(self, vectors: list[Vector]) -> torch.Tensor:
        """Return vectors in the kernels' order, ``(k, n)``; the same vector many times is there once, a view of it for each."""
        inward = self._compiled.layout.inward
        if all(vector is vectors[0] for vector in vectors):
            return inward(vectors[0])[None].to(self._device).expand(len(vectors), -1)
        return torch.stack([inward(vector) for vector in vectors]).to(self._device)
