"""Who trains on what in which step: every example once an epoch, in the device's own order, and no step for nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.kernel.schedule import Rounds, step_counts


def jobs_of(counts: list[int], epochs: int | None = None) -> list[LocalJob]:
    model = np.zeros(1, np.float32)
    return [
        LocalJob(model, np.zeros((n, 2), np.float32), None, (7, seed), epochs)
        for seed, n in enumerate(counts)
    ]


def test_steps_are_epochs_times_batches_or_the_plans() -> None:
    spec = TrainingSpec(batch_size=4, local_epochs=2)
    jobs = jobs_of([0, 1, 4, 5])
    jobs += [jobs[3]._replace(epochs=3), jobs[3]._replace(private=StepPlan(0.1, 1.0, 1.0, 9))]

    assert step_counts(jobs, spec).tolist() == [0, 2, 2, 4, 6, 9]


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    batch=st.integers(1, 5),
    epochs=st.integers(1, 3),
)
def test_every_device_sees_its_examples_once_an_epoch_in_its_order(
    counts: list[int], batch: int, epochs: int
) -> None:
    spec = TrainingSpec(batch_size=batch, local_epochs=epochs)
    jobs = sorted(jobs_of(counts), key=lambda job: -len(job.x))
    steps = step_counts(jobs, spec)
    starts = np.concatenate([[0], np.cumsum([len(job.x) for job in jobs])])
    rounds = Rounds(jobs, spec, steps, starts, int(starts[-1]))
    scales, last = rounds.scales(), rounds.last_epoch()

    seen: list[list[int]] = [[] for _ in jobs]
    lasts = np.zeros(len(jobs))
    for number, active in enumerate(rounds.active):
        assert active == (steps > number).sum()
        window = rounds.window(number).reshape(active, rounds.rows)
        part = rounds.part(number)
        assert rounds.any_last[number] == bool(last[part].any())
        lasts[:active] += last[part]
        for device, row in enumerate(window):
            real = row[row != starts[-1]]
            seen[device] += real.tolist()
            assert 1 <= len(real) <= batch
            assert np.array_equal(scales[part][device] > 0, row != starts[-1])
            assert np.isclose(scales[part][device].sum(), 1.0)
    for device, job in enumerate(jobs):
        n = len(job.x)
        order = np.random.default_rng(job.order_seed)
        order.integers(2**63)
        wanted = [order.permutation(n) + starts[device] for _ in range(epochs if n else 0)]
        assert seen[device] == [int(place) for epoch in wanted for place in epoch]
        assert lasts[device] == (-(-n // batch))
