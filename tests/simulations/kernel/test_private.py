"""DP-SGD of the kernels: per-example clipping by hand and by Opacus, odd gradients, noise keyed by job and step.

Statistical bounds are six standard errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support.simulation_kernels import (
    SMALL,
    SketchRecipe,
    each_gradient,
    kernels,
    make_job,
    small,
    start,
    trained,
)

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.simulations.kernel.protocol import KernelName

ALL: tuple[KernelName, ...] = ("reference", "explicit", "stacked")
FAST: tuple[KernelName, ...] = ("explicit", "stacked")
COUNTS = (0, 1, 3, 9, 17)


def plan(**changes: float) -> StepPlan:
    values: dict[str, Any] = {
        "sampling_rate": 1.0, "noise_multiplier": 0.0, "clip_norm_l2": 0.5, "steps": 1,
    }  # fmt: skip
    return StepPlan(**{**values, **changes})


@pytest.mark.parametrize("clip", [0.01, 0.5, 1e6])
@pytest.mark.parametrize("kernel_name", ALL)
@pytest.mark.parametrize("name", SMALL)
def test_a_step_sums_gradients_clipped_one_by_one(name: str, kernel_name: KernelName, clip: float) -> None:
    recipe, parameters = small(name)
    (kernel,) = kernels([kernel_name], recipe, parameters, learning_rate=1.0)
    job = make_job(
        recipe, parameters, start(recipe, parameters), 7, 1, private=plan(clip_norm_l2=clip), noise_key=(1,)
    )

    updates, (result,) = trained(kernel, [job])

    each = each_gradient(recipe, parameters, job)
    norms = np.linalg.norm(each, axis=1, keepdims=True)
    by_hand = -(each * np.minimum(1, clip / norms)).sum(axis=0) / 4
    assert np.abs(updates[0] - by_hand).max() <= 1e-6
    assert result.steps == 1
    assert np.isnan(result.loss)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"proximal_mu": 0.5}, {"optimizer": "adam", "learning_rate": 0.001}]
)
@pytest.mark.parametrize("name", SMALL)
def test_several_steps_without_noise_equal_opacus(name: str, options: dict[str, Any]) -> None:
    recipe, parameters = small(name)
    reference, *fast = kernels(ALL, recipe, parameters, **options)
    model = start(recipe, parameters)
    jobs = [
        make_job(
            recipe, parameters, model, n, n, noise_key=(2, n),
            private=plan(sampling_rate=0.4, steps=2 + n % 3, clip_norm_l2=0.3 + 0.01 * n),
        )
        for n in COUNTS
    ]  # fmt: skip

    wanted, told = trained(reference, jobs)
    assert np.abs(wanted).max() > 1e-4
    for kernel in fast:
        updates, results = trained(kernel, jobs)
        # Adam divides a gradient by its own size: see test_against_reference.
        assert np.abs(updates - wanted).max() <= (3e-5 if "optimizer" in options else 1e-6), kernel.name
        assert [r.steps for r in results] == [r.steps for r in told]


@pytest.mark.parametrize("kernel_name", FAST)
@pytest.mark.parametrize("name", SMALL)
def test_one_key_gives_every_kernel_the_same_noise_and_draws(name: str, kernel_name: KernelName) -> None:
    recipe, parameters = small(name)
    reference, kernel = kernels(("reference", kernel_name), recipe, parameters)
    model = start(recipe, parameters)
    noisy = plan(noise_multiplier=1.3, sampling_rate=0.5, steps=3)
    jobs = [make_job(recipe, parameters, model, n, n, private=noisy, noise_key=(9, n)) for n in COUNTS]

    wanted, _ = trained(reference, jobs)
    updates, _ = trained(kernel, jobs)

    assert np.abs(updates - wanted).max() <= 1e-6


@pytest.mark.parametrize("kernel_name", FAST)
def test_a_correction_is_added_after_the_noise_and_never_clipped(kernel_name: KernelName) -> None:
    recipe, parameters = small("mlp")
    reference, kernel = kernels(("reference", kernel_name), recipe, parameters)
    model = start(recipe, parameters)
    correction = np.full_like(model, 7.0)
    job = make_job(recipe, parameters, model, 5, 1, private=plan(), noise_key=(1,), correction=correction)

    wanted, _ = trained(reference, [job])
    bare, _ = trained(reference, [job._replace(correction=None)])
    updates, _ = trained(kernel, [job])

    assert np.abs(updates - wanted).max() <= 1e-6
    assert wanted - bare == pytest.approx(-0.05 * 7.0, abs=1e-6)


@pytest.mark.parametrize("kernel_name", ALL)
@pytest.mark.parametrize("name", SMALL)
def test_an_example_without_a_finite_gradient_counts_as_zero(name: str, kernel_name: KernelName) -> None:
    recipe, parameters = small(name)
    (kernel,) = kernels([kernel_name], recipe, parameters)
    job = make_job(recipe, parameters, start(recipe, parameters), 6, 1, private=plan(), noise_key=(1,))
    spoiled = job.x.copy()
    spoiled[2] = np.nan
    spoiled[4] = np.inf
    rest = [0, 1, 3, 5]

    updates, _ = trained(kernel, [job._replace(x=spoiled)])
    without, _ = trained(kernel, [job._replace(x=job.x[rest], y=None if job.y is None else job.y[rest])])

    assert np.isfinite(updates).all()
    assert np.abs(updates - without).max() <= 1e-6


@pytest.mark.parametrize("kernel_name", FAST)
@pytest.mark.parametrize("name", ["digits-cnn", "mlp"])
def test_a_large_draw_taken_in_parts_gives_the_same_sum(
    name: str, kernel_name: KernelName, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, parameters = small(name)
    job = make_job(
        recipe, parameters, start(recipe, parameters), 40, 1, private=plan(steps=2), noise_key=(1,)
    )
    (whole,) = kernels([kernel_name], recipe, parameters, batch_size=64)
    wanted, _ = trained(whole, [job])
    for module in ("explicit", "private_stack"):
        monkeypatch.setattr(f"hedgerow.simulations.kernel.{module}._CHUNK_VALUES", 7 * whole.n_parameters)
    (parts,) = kernels([kernel_name], recipe, parameters, batch_size=64)

    updates, _ = trained(parts, [job])

    assert np.abs(updates - wanted).max() <= 1e-6


@pytest.mark.parametrize("kernel_name", ALL)
def test_noise_has_the_size_asked_for_and_no_mean(kernel_name: KernelName) -> None:
    recipe = SketchRecipe(lambda: torch.nn.Linear(400, 50), (400,), 50)
    (kernel,) = kernels([kernel_name], recipe, {}, learning_rate=1.0)
    model = np.zeros(kernel.n_parameters, np.float32)
    noise_only = plan(noise_multiplier=3.0, clip_norm_l2=0.5)
    job = make_job(recipe, {}, model, 0, 1, private=noise_only, noise_key=(1, 2, 3))

    updates, _ = trained(kernel, [job])

    n, sigma = kernel.n_parameters, 3.0 * 0.5 / 4
    assert updates[0].std() == pytest.approx(sigma, abs=6 * sigma / np.sqrt(2 * n))
    assert updates[0].mean() == pytest.approx(0, abs=6 * sigma / np.sqrt(n))


@pytest.mark.parametrize("kernel_name", ALL)
def test_other_keys_and_other_steps_have_noise_of_their_own(kernel_name: KernelName) -> None:
    recipe = SketchRecipe(lambda: torch.nn.Linear(200, 20), (200,), 20)
    (kernel,) = kernels([kernel_name], recipe, {}, learning_rate=1.0)
    model = np.zeros(kernel.n_parameters, np.float32)
    keys = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (11, 1), (1, 11)]
    one, two = plan(noise_multiplier=1.0), plan(noise_multiplier=1.0, steps=2)
    jobs = [make_job(recipe, {}, model, 0, 1, private=one, noise_key=key) for key in keys]
    jobs.append(jobs[0]._replace(private=two))

    updates, _ = trained(kernel, jobs)

    rows = np.vstack([updates[:5], updates[5] - updates[0]])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 6 / np.sqrt(kernel.n_parameters)


@pytest.mark.parametrize("kernel_name", ALL)
def test_private_training_without_a_key_is_refused(kernel_name: KernelName) -> None:
    recipe, parameters = small("mlp")
    (kernel,) = kernels([kernel_name], recipe, parameters)
    job = make_job(recipe, parameters, start(recipe, parameters), 5, 1, private=plan())

    with pytest.raises(ValueError, match="noise key"):
        trained(kernel, [job])


@pytest.mark.parametrize("kernel_name", FAST)
def test_the_number_of_steps_is_the_plans_whatever_was_drawn(kernel_name: KernelName) -> None:
    recipe, parameters = small("digits-cnn")
    (kernel,) = kernels([kernel_name], recipe, parameters)
    model = start(recipe, parameters)
    plans = [
        plan(sampling_rate=0.0, steps=4),
        plan(sampling_rate=1.0, steps=2),
        plan(sampling_rate=0.01, steps=6),
    ]
    jobs = [make_job(recipe, parameters, model, 5, n, private=p, noise_key=(n,)) for n, p in enumerate(plans)]

    updates, results = trained(kernel, jobs)

    assert [result.steps for result in results] == [4, 2, 6]
    assert not updates[0].any()
    assert updates[1].any()
