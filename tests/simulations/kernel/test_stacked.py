"""Devices side by side: who else is in the group must not show, whatever the group, the order, or a neighbour's bad data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulation_kernels import SMALL, SketchRecipe, kernels, make_job, small, start, trained

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import find_recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.protocol import Kernel, KernelName, LocalJob

PLAN = StepPlan(sampling_rate=0.5, noise_multiplier=1.0, clip_norm_l2=1.0, steps=3)
ROUNDING = 1e-6


def stacked(name: str, group: int, **training: Any) -> tuple[Kernel, dict[str, Any], Any]:
    recipe, parameters = small(name)
    spec = TrainingSpec(**{"batch_size": 4, "learning_rate": 0.05, **training})
    return make_kernel("stacked", recipe, parameters, spec, group=group), parameters, recipe


def mixed_jobs(recipe: Any, parameters: dict[str, Any], model: np.ndarray[Any, Any]) -> list[LocalJob]:
    jobs = [make_job(recipe, parameters, model, n, n) for n in (5, 0, 17, 2, 9)]
    jobs += [make_job(recipe, parameters, model, n, n, private=PLAN, noise_key=(3, n)) for n in (6, 0, 11)]
    return [jobs[n] for n in (0, 5, 1, 2, 6, 3, 7, 4)]


@pytest.mark.parametrize("name", SMALL)
def test_a_job_alone_gives_what_it_gives_among_others(name: str) -> None:
    kernel, parameters, recipe = stacked(name, 8)
    jobs = mixed_jobs(recipe, parameters, start(recipe, parameters))

    together, told = trained(kernel, jobs)

    for job, update, result in zip(jobs, together, told, strict=True):
        alone, (single,) = trained(kernel, [job])
        assert np.abs(alone[0] - update).max() <= ROUNDING
        assert single.steps == result.steps
        assert single.loss == pytest.approx(result.loss, rel=1e-5, nan_ok=True)


@settings(max_examples=20)
@given(
    counts=st.lists(st.integers(0, 13), min_size=1, max_size=9),
    group=st.integers(1, 10),
    epochs=st.integers(1, 3),
    batch=st.integers(1, 7),
)
def test_any_ragged_fleet_equals_the_explicit_kernel(
    counts: list[int], group: int, epochs: int, batch: int
) -> None:
    kernel, parameters, recipe = stacked("mlp", group, local_epochs=epochs, batch_size=batch)
    (explicit,) = kernels(["explicit"], recipe, parameters, local_epochs=epochs, batch_size=batch)
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, n, seed) for seed, n in enumerate(counts)]

    ours, told = trained(kernel, jobs)
    theirs, wanted = trained(explicit, jobs)

    assert np.abs(ours - theirs).max() <= 5 * ROUNDING
    assert [r.steps for r in told] == [r.steps for r in wanted]
    assert [r.loss for r in told] == pytest.approx([r.loss for r in wanted], rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("kernel_name", ["explicit", "stacked"])
@pytest.mark.parametrize("name", SMALL)
def test_the_same_call_gives_the_same_bits(name: str, kernel_name: KernelName) -> None:
    recipe, parameters = small(name)
    jobs = mixed_jobs(recipe, parameters, start(recipe, parameters))
    first, second = (kernels([kernel_name], recipe, parameters)[0] for _ in range(2))

    one, _ = trained(first, jobs)
    again, _ = trained(first, jobs)
    other, _ = trained(second, jobs)

    assert np.array_equal(one, again)
    assert np.array_equal(one, other)


def test_more_jobs_than_the_group_are_taken_group_by_group() -> None:
    kernel, parameters, recipe = stacked("mlp", 3)
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, 3 + n, n) for n in range(8)]

    together, _ = trained(kernel, jobs)
    apart = np.concatenate([trained(kernel, jobs[n : n + 3])[0] for n in (0, 3, 6)])

    assert np.array_equal(together, apart)


@pytest.mark.parametrize("private", [None, PLAN])
@pytest.mark.parametrize("name", SMALL)
def test_a_neighbours_nan_stays_with_the_neighbour(name: str, private: StepPlan | None) -> None:
    kernel, parameters, recipe = stacked(name, 8)
    model = start(recipe, parameters)
    jobs = [
        make_job(recipe, parameters, model, n, n, private=private, noise_key=(n,) if private else ())
        for n in (7, 5, 9)
    ]
    spoiled = jobs[1]._replace(x=np.full_like(jobs[1].x, np.nan))

    clean, _ = trained(kernel, jobs)
    updates, _ = trained(kernel, [jobs[0], spoiled, jobs[2]])

    assert np.abs(updates[[0, 2]] - clean[[0, 2]]).max() <= ROUNDING
    assert np.isfinite(updates[1]).all() == (private is not None)


@pytest.mark.parametrize("kernel_name", ["reference", "explicit", "stacked"])
@pytest.mark.parametrize("name", SMALL)
def test_examples_that_are_not_finite_give_an_update_that_is_not(name: str, kernel_name: KernelName) -> None:
    recipe, parameters = small(name)
    (kernel,) = kernels([kernel_name], recipe, parameters)
    job = make_job(recipe, parameters, start(recipe, parameters), 6, 1)
    job.x[2] = np.nan

    updates, _ = trained(kernel, [job])

    assert not np.isfinite(updates).all()


def test_a_model_that_is_not_finite_gives_an_update_that_is_not() -> None:
    kernel, parameters, recipe = stacked("mlp", 4)
    model = start(recipe, parameters)
    good, bad = (make_job(recipe, parameters, model, n, n) for n in (5, 6))
    bad = bad._replace(model=np.full_like(model, np.inf))

    updates, _ = trained(kernel, [good, bad])

    assert np.isfinite(updates[0]).all()
    assert not np.isfinite(updates[1]).all()


def test_a_loss_that_is_not_finite_at_nothing_stays_finite_in_short_batches() -> None:
    class Relative(SketchRecipe):
        def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
            error = (module(x) - x.sum(dim=1, keepdim=True)) / x.square().sum(dim=1, keepdim=True).sqrt()
            squared: torch.Tensor = error.square().sum(dim=1)
            return squared

    recipe = Relative(lambda: torch.nn.Linear(4, 1), (4,))
    reference, kernel = kernels(("reference", "stacked"), recipe, {})
    model = start(recipe, {})
    jobs = [make_job(recipe, {}, model, n, n) for n in (3, 6)]
    jobs += [make_job(recipe, {}, model, n, n, private=PLAN, noise_key=(n,)) for n in (3, 6)]

    wanted, told = trained(reference, jobs)
    updates, results = trained(kernel, jobs)

    assert np.isfinite(wanted).all()
    assert np.abs(updates - wanted).max() <= 5 * ROUNDING
    assert [r.loss for r in results] == pytest.approx([r.loss for r in told], rel=1e-5, nan_ok=True)


def test_no_job_at_all_is_no_work() -> None:
    kernel, _, _ = stacked("mlp", 4)

    assert kernel.train([], np.zeros((0, kernel.n_parameters), np.float32)) == []


@pytest.mark.parametrize("kernel_name", ["explicit", "stacked"])
@pytest.mark.parametrize("name", SMALL)
def test_what_a_kernel_trained_before_does_not_show_in_a_single_bit(
    name: str, kernel_name: KernelName
) -> None:
    recipe = find_recipe(name)
    parameters = recipe.check({})
    model = start(recipe, parameters)
    used, fresh = (kernels([kernel_name], recipe, parameters, batch_size=16)[0] for _ in range(2))
    jobs = [make_job(recipe, parameters, model, n, n) for n in (20, 33)]
    jobs.append(make_job(recipe, parameters, model, 25, 7, private=PLAN, noise_key=(7,)))

    for n in (1, 50, 16, 7):
        trained(used, [make_job(recipe, parameters, start(recipe, parameters, n), n, n)])
    trained(used, [job._replace(private=PLAN, noise_key=(9,)) for job in jobs[:2]])
    after, _ = trained(used, jobs)
    first, _ = trained(fresh, jobs)

    assert np.array_equal(after, first)
