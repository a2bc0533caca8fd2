"""The reference kernel: a device's own trainers to the bit, and their arithmetic worked out by hand on one linear layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support.simulation_kernels import SketchRecipe, kernels, make_job, small, start, trained
from tests.support.tiny_recipe import RECIPE as TINY
from tests.support.tiny_recipe import WIDTH, examples

from hedgerow.edge_agent.trainer.codes import DeclinedError
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import TrainingSet
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.batches import count_batches, epoch_orders
from hedgerow.simulations.kernel.protocol import Kernel, LocalJob

Doubles = np.ndarray[Any, np.dtype[np.float64]]


def reference(**training: Any) -> Kernel:
    (kernel,) = kernels(["reference"], TINY, {}, **training)
    return kernel


def tiny_job(n: int, **changes: Any) -> LocalJob:
    model = np.linspace(-1, 1, WIDTH + 1).astype(np.float32)
    return LocalJob(model, examples(n), None, (3, 1, n), **changes)


def mean_gradient(x: Doubles, vector: Doubles) -> Doubles:
    """Gradient of the mean of (w·x + b − Σx)² in (w, b)."""
    error = 2 * (x @ vector[:WIDTH] + vector[WIDTH] - x.sum(axis=1))
    return np.append((error[:, None] * x).mean(axis=0), error.mean())


def descend(job: LocalJob, batch: int, rate: float, epochs: int, mu: float, momentum: float) -> Doubles:
    """SGD by hand in float64, with pull, correction and momentum."""
    x, base = job.x.astype(np.float64), job.model.astype(np.float64)
    w, velocity = base.copy(), np.zeros_like(base)
    correction = np.zeros_like(base) if job.correction is None else job.correction.astype(np.float64)
    order = np.random.default_rng(job.order_seed)
    order.integers(2**63)
    for _ in range(epochs):
        shuffled = order.permutation(len(x))
        for at in range(0, len(x), batch):
            gradient = mean_gradient(x[shuffled[at : at + batch]], w) + mu * (w - base) + correction
            velocity = momentum * velocity + gradient
            w = w - rate * velocity
    return w - base


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("mu", [0.0, 0.7])
@pytest.mark.parametrize("correction", [None, np.array([0.3, -0.2, 0.1, 0.5], np.float32)])
def test_training_is_the_arithmetic_of_sgd(mu: float, momentum: float, correction: Any) -> None:
    job = tiny_job(7, correction=correction)
    options: dict[str, Any] = {"batch_size": 3, "learning_rate": 0.02, "local_epochs": 2}

    wanted = descend(job, 3, 0.02, 2, mu, momentum)
    for kernel in kernels(
        ("reference", "explicit", "stacked"), TINY, {}, proximal_mu=mu, momentum=momentum, **options
    ):
        updates, (result,) = trained(kernel, [job])
        assert updates[0] == pytest.approx(wanted, rel=1e-4, abs=1e-6), kernel.name
        assert result.steps == 6


@pytest.mark.parametrize("name", ["digits-cnn", "mlp"])
def test_a_plain_job_is_the_device_trainers_to_the_bit(name: str) -> None:
    recipe, parameters = small(name)
    spec = TrainingSpec(batch_size=4, learning_rate=0.05, local_epochs=2)
    (kernel,) = kernels(["reference"], recipe, parameters, local_epochs=2)
    job = make_job(recipe, parameters, start(recipe, parameters), 9, 1)

    updates, (result,) = trained(kernel, [job])
    alone = PlainTrainer(recipe, recipe.build(parameters), TrainingSet(job.x, job.y)).train(
        job.model, spec, job.order_seed
    )

    assert np.array_equal(updates[0], alone.delta)
    assert result.loss == alone.loss


def test_batches_are_those_that_the_device_trainer_takes() -> None:
    taken: list[list[float]] = []

    class Watching(SketchRecipe):
        def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
            taken.append(x[:, 0].tolist())
            return super().loss(module, x, y)

    recipe = Watching(lambda: torch.nn.Linear(1, 1), (1,))
    x = np.arange(10, dtype=np.float32)[:, None]
    spec = TrainingSpec(batch_size=4, local_epochs=2)
    PlainTrainer(recipe, recipe.build({}), TrainingSet(x, None)).train(np.zeros(2, np.float32), spec, (4, 2))

    ours = [
        [float(place) for place in order[at : at + 4]]
        for order in epoch_orders((4, 2), 10, 2)
        for at in range(0, 10, 4)
    ]

    assert taken == ours
    assert len(taken) == 2 * count_batches(10, 4)


@pytest.mark.parametrize(("n", "batch", "wanted"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (8, 1, 8)])
def test_a_short_last_batch_counts(n: int, batch: int, wanted: int) -> None:
    assert count_batches(n, batch) == wanted


def test_private_jobs_in_a_row_do_not_meet() -> None:
    kernel = reference()
    plan = StepPlan(sampling_rate=0.5, noise_multiplier=1.0, clip_norm_l2=1.0, steps=3)
    jobs = [tiny_job(n, private=plan, noise_key=(1, n)) for n in (5, 9)]

    together, _ = trained(kernel, jobs)
    apart = np.concatenate([trained(kernel, [job])[0] for job in reversed(jobs)])[::-1]

    assert np.array_equal(together, apart)


def test_a_recipe_that_no_other_kernel_reads_trains_all_the_same() -> None:
    recipe = SketchRecipe(
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)), (4,), 3
    )
    (kernel,) = kernels(["reference"], recipe, {})
    plan = StepPlan(sampling_rate=0.5, noise_multiplier=1.0, clip_norm_l2=1.0, steps=2)
    job = make_job(recipe, {}, start(recipe, {}), 9, 1)

    updates, results = trained(kernel, [job, job._replace(private=plan, noise_key=(1,))])

    assert np.abs(updates).max(axis=1).min() > 0
    assert [result.steps for result in results] == [3, 2]


def test_batch_statistics_are_refused_with_privacy_alone() -> None:
    (kernel,) = kernels(["reference"], TINY, {"layer": "norm"})
    plan = StepPlan(sampling_rate=0.5, noise_multiplier=1.0, clip_norm_l2=1.0, steps=2)
    job = LocalJob(start(TINY, {"layer": "norm"}), examples(8), None, (1,))

    assert trained(kernel, [job])[0].any()
    with pytest.raises(DeclinedError, match="BatchNorm"):
        trained(kernel, [job._replace(private=plan, noise_key=(1,))])
