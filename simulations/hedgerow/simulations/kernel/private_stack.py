"""DP-SGD for many devices side by side: every device draws its own batch and its own noise at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.compiled import Compiled
from hedgerow.simulations.kernel.descent import Descent
from hedgerow.simulations.kernel.draws import job_stream, noise_words, normal_draws
from hedgerow.simulations.kernel.program import Programs
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.kernel.schedule import Table

_CHUNK_VALUES = 16 * 1024 * 1024
"""Per-example gradients held at once (64 MiB): larger batches are taken in parts, their sum is the same."""


class PrivateRounds:
    """The steps of jobs sorted by how many they take, most first; all have a plan."""

    def __init__(self, jobs: Sequence[LocalJob], compiled: Compiled, bank: Bank, programs: Programs) -> None:
        self._jobs = jobs
        self._plans: list[StepPlan] = [job.private for job in jobs if job.private is not None]
        self._streams = [job_stream(job.noise_key) for job in jobs]
        self._compiled, self._bank, self._programs = compiled, bank, programs
        self._sigma = np.array([[p.noise_multiplier * p.clip_norm_l2] for p in self._plans], np.float32)
        self._noise = np.empty((len(jobs), compiled.network.n_parameters), np.float32)

    def run(self, table: Table, descent: Descent, batch_size: int) -> None:
        """Take all steps."""
        for step in range(self._plans[0].steps if self._plans else 0):
            active = sum(plan.steps > step for plan in self._plans)
            self._step(table, active)
            descent.step(active, batch_size)

    def _step(self, table: Table, active: int) -> None:
        """Fill the gradients with noisy sums of clipped gradients."""
        size = self._compiled.network.n_parameters
        words, drawn = [], []
        for device, stream in enumerate(self._streams[:active]):
            rate = self._plans[device].sampling_rate
            drawn.append(stream.poisson_batch(len(self._jobs[device].x), rate) + table.starts[device])
            words.append(noise_words(stream, size))
        noise = self._noise[:active]
        normal_draws(np.stack(words), self._sigma[:active], noise)
        self._bank.set_gradients(torch.from_numpy(noise).to(self._bank.device))
        longest = max((len(rows) for rows in drawn), default=0)
        part = max(1, _CHUNK_VALUES // (size * active))
        for start in range(0, longest, part):
            self._add(table, [rows[start : start + part] for rows in drawn])

    def _add(self, table: Table, drawn: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> None:
        """Add the clipped gradients of these examples, so many for each device; rows are even, so that programs recur."""
        rows = _even(max(len(examples) for examples in drawn))
        index = np.full((len(drawn), rows), table.blank, np.int64)
        for device, examples in enumerate(drawn):
            index[device, : len(examples)] = examples
        flat = torch.from_numpy(index.reshape(-1)).to(self._bank.device)
        program = self._programs.get(len(drawn), rows)
        target = table.fill(program.x, flat)
        clips = [[plan.clip_norm_l2] for plan in self._plans[: len(drawn)]]
        clip = torch.tensor(clips, dtype=torch.float64, device=self._bank.device)
        program.add_clipped(target, clip, (flat != table.blank).view(-1, 1).float())


def _even(rows: int) -> int:
    return rows + rows % 2
