"""Which kernel for a run: timed on its own devices for a fraction of a second, or taken from the record of an earlier run.

The kernels differ by rounding, so that a replay must take the choice that was recorded; timing it again might not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from hedgerow.models.recipe import Parameters, Recipe
from hedgerow.shared.errors import ConfigError, UnsupportedError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.batches import count_batches
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.protocol import Kernel, KernelName, LocalJob
from hedgerow.simulations.kernel.stacked import GROUP

GROUPS: Final = (8, 32, 128)
MARGIN: Final = 0.97
"""A larger group, or stacking at all, must take less than this share of the time to be taken."""
MOST_STEPS: Final = 64
"""A job that has more steps is timed on so many: what is asked is the time of one."""
_EXPLICIT_JOBS: Final = 4
_STACK_VALUES: Final = 8 * 1024 * 1024
"""Most values that a group's models may have together (32 MiB; gradients, bases and updates are as many again each)."""
_STACK_MODEL: Final = 1024 * 1024
"""Models with more values keep a core busy alone, and a group of them would take memory for nothing: not even timed."""


class Choice(NamedTuple):
    """``timings`` are processor seconds a step and device, by the text of what was timed; empty if nothing was."""

    name: KernelName
    group: int
    timings: dict[str, float]

    @property
    def text(self) -> str:
        """What a run's record keeps, for ``read_choice``."""
        return f"{self.name}:{self.group}"

    def make(
        self, recipe: Recipe, parameters: Parameters, training: TrainingSpec, device: str = "cpu"
    ) -> Kernel:
        """Return the kernel. Raises UnsupportedError as ``make_kernel`` does."""
        return make_kernel(self.name, recipe, parameters, training, device, group=self.group)


Timed = Callable[[Choice, int, float], float]
"""Seconds a step of a choice on so many jobs, taking about so many seconds. Raises UnsupportedError where it cannot be had."""


def read_choice(text: str) -> Choice:
    """Return the choice that ``Choice.text`` wrote. Raises ConfigError for anything else."""
    name, _, group = text.partition(":")
    known: dict[str, KernelName] = {
        "reference": "reference", "explicit": "explicit", "stacked": "stacked",
    }  # fmt: skip
    if name not in known or not group.isascii() or not group.isdigit() or not 1 <= int(group) <= 10_000:
        raise ConfigError(f"kernel {text!r} is no choice; expected say 'explicit:1' or 'stacked:32'")
    return Choice(known[name], int(group), {})


def choose_kernel(
    recipe: Recipe,
    parameters: Parameters,
    training: TrainingSpec,
    jobs: Sequence[LocalJob],
    device: str = "cpu",
    seconds: float = 0.4,
    timed: Timed | None = None,
) -> Choice:
    """Return the faster of ``explicit`` and ``stacked`` on ``jobs``, which should be like the run's: sizes, epochs, privacy.

    Takes about ``seconds`` of processor time, a few steps more where one call alone takes longer. ``reference`` is chosen where
    neither can train the recipe; off the CPU, ``stacked`` without asking. ``timed`` times elsewhere than in this process.
    """
    if device != "cpu":
        return Choice("stacked", GROUP, {})

    def here(choice: Choice, count: int, budget_s: float) -> float:
        return seconds_a_step(choice.make(recipe, parameters, training), jobs, training, count, budget_s)

    timings: dict[str, float] = {}
    tried: set[str] = set()
    best = Choice("reference", 1, timings)
    for candidate in _candidates(len(jobs[0].model) if len(jobs) else 0, len(_trainable(jobs))):
        if "stacked" in tried and best.name != "stacked":
            break  # small groups lose already: larger ones cost more to try
        tried.add(candidate.name)
        count = _EXPLICIT_JOBS if candidate.name == "explicit" else candidate.group
        try:
            used = (timed or here)(candidate, count, seconds / 4)
        except UnsupportedError:
            continue
        timings[candidate.text] = used
        if best.name == "reference" or used < MARGIN * timings[best.text]:
            best = Choice(candidate.name, candidate.group, timings)
    return best


def seconds_a_step(
    kernel: Kernel, jobs: Sequence[LocalJob], training: TrainingSpec, count: int, budget_s: float
) -> float:
    """Return the least processor time that a step of ``kernel`` takes on ``count`` of the jobs, shortened, from small to large.

    Takes about ``budget_s`` after one call to get warm. Infinite if there is no step.
    """
    return _least(kernel, _spread(shortened(_trainable(jobs), training), count), budget_s)


def shortened(jobs: Sequence[LocalJob], training: TrainingSpec) -> list[LocalJob]:
    """Return ``jobs`` with as many epochs, and then as many examples, as keep the longest to about ``MOST_STEPS``.

    All are cut by the same share, so that in a group some still end before others as they would in the run.
    """
    epochs = [training.local_epochs if job.epochs is None else job.epochs for job in jobs]
    batches = [count_batches(len(job.x), training.batch_size) for job in jobs]
    drawn = max((job.private.steps for job in jobs if job.private is not None), default=0)
    longest = max((b for b, job in zip(batches, jobs, strict=True) if job.private is None), default=0)
    kept = min(1.0, MOST_STEPS / max(1, longest))
    most_epochs = max(1, MOST_STEPS // max(1, longest))
    return [
        _cut(job, kept, min(own, most_epochs)) if job.private is None else _cut_draws(job, drawn)
        for job, own in zip(jobs, epochs, strict=True)
    ]


def _cut(job: LocalJob, kept: float, epochs: int) -> LocalJob:
    count = math.ceil(kept * len(job.x))
    return job._replace(x=job.x[:count], y=None if job.y is None else job.y[:count], epochs=epochs)


def _cut_draws(job: LocalJob, drawn: int) -> LocalJob:
    """Return a private job with its share of ``MOST_STEPS``; all its examples stay, as each step draws among them."""
    if job.private is None or drawn <= MOST_STEPS:
        return job
    steps = max(1, math.ceil(job.private.steps * MOST_STEPS / drawn))
    return job._replace(private=msgspec.structs.replace(job.private, steps=steps))


def _candidates(n_parameters: int, n_jobs: int) -> list[Choice]:
    """Return what is worth timing, small groups first; none larger than the run, or than memory allows."""
    most = 0 if n_parameters > _STACK_MODEL else min(n_jobs, _STACK_VALUES // max(1, n_parameters))
    groups = [group for group in GROUPS if group <= most] or ([most] if most > 1 else [])
    return [Choice("explicit", 1, {}), *(Choice("stacked", group, {}) for group in groups)]


def _spread(jobs: Sequence[LocalJob], count: int) -> list[LocalJob]:
    """Return ``count`` jobs, evenly from the smallest to the largest."""
    by_size = sorted(jobs, key=lambda job: len(job.x))
    if not by_size:
        return []
    places = np.linspace(0, len(by_size) - 1, min(count, len(by_size))).round().astype(int)
    return [by_size[n] for n in places]


def _trainable(jobs: Sequence[LocalJob]) -> list[LocalJob]:
    return [job for job in jobs if len(job.x) or job.private is not None]


def _least(kernel: Kernel, jobs: Sequence[LocalJob], budget_s: float) -> float:
    if not jobs:
        return float("inf")
    parts = [jobs[at : at + kernel.group] for at in range(0, len(jobs), kernel.group)]
    steps = sum(result.steps for part in parts for result in kernel.train(part, kernel.room(len(part))))
    best, spent = float("inf"), 0.0
    while best == float("inf") or spent + best < budget_s:
        start = time.thread_time()
        for part in parts:
            kernel.train(part, kernel.room(len(part)))
        used = time.thread_time() - start
        spent += used
        best = min(best, used)
    return best / steps if steps else float("inf")
