"""The fast kernels beside the device's own trainer: every shipped recipe, every option of local training, ragged devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.simulation_kernels import SMALL, kernels, make_job, small, start, trained

from hedgerow.simulations.kernel.protocol import KernelName

FAST: tuple[KernelName, ...] = ("explicit", "stacked")
COUNTS = (0, 1, 3, 4, 5, 9, 17)
VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "local_epochs": 2},
    "prox": {"proximal_mu": 0.5, "local_epochs": 2},
    "prox and momentum": {"proximal_mu": 0.1, "momentum": 0.5},
    "adam": {"optimizer": "adam", "learning_rate": 0.001},
    "adam and prox": {"optimizer": "adam", "learning_rate": 0.001, "proximal_mu": 0.3, "local_epochs": 2},
    "one batch": {"batch_size": 64},
    "batches of one": {"batch_size": 1},
}


def tolerance(variant: str) -> float:
    # Adam's first steps divide a gradient by its own size: rounding of one near zero shows at the size of a step.
    return 3e-5 if "adam" in variant else 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SMALL)
def test_two_rounds_of_every_device_equal_the_references(name: str, variant: str) -> None:
    recipe, parameters = small(name)
    reference, *fast = kernels(("reference", *FAST), recipe, parameters, **VARIANTS[variant])
    model = start(recipe, parameters)
    for number in range(2):
        jobs = [make_job(recipe, parameters, model, n, 10 * number + n) for n in COUNTS]
        wanted, told = trained(reference, jobs)
        assert np.abs(wanted[1:]).max(axis=1).min() > 1e-4
        for kernel in fast:
            updates, results = trained(kernel, jobs)
            assert np.abs(updates - wanted).max() <= tolerance(variant), (kernel.name, number)
            assert [r.steps for r in results] == [r.steps for r in told]
            assert [r.loss for r in results] == pytest.approx([r.loss for r in told], rel=1e-5, nan_ok=True)
        model = (model + wanted.mean(axis=0)).astype(np.float32)


@pytest.mark.parametrize("variant", ["sgd", "momentum", "prox", "adam"])
@pytest.mark.parametrize("kernel_name", FAST)
def test_a_correction_is_added_to_every_gradient_of_its_job_alone(
    kernel_name: KernelName, variant: str
) -> None:
    recipe, parameters = small("digits-cnn")
    reference, kernel = kernels(("reference", kernel_name), recipe, parameters, **VARIANTS[variant])
    model = start(recipe, parameters)
    rng = np.random.default_rng(4)
    jobs = [
        make_job(recipe, parameters, model, n, n, correction=correction)
        for n, correction in (
            (7, rng.normal(scale=0.1, size=len(model)).astype(np.float32)),
            (9, None),
            (2, rng.normal(scale=0.1, size=len(model)).astype(np.float32)),
        )
    ]

    wanted, _ = trained(reference, jobs)
    bare, _ = trained(reference, [job._replace(correction=None) for job in jobs])
    updates, _ = trained(kernel, jobs)

    assert np.abs(updates - wanted).max() <= tolerance(variant)
    differs = np.abs(wanted - bare).max(axis=1) > 1e-4
    assert differs.tolist() == [True, False, True]


@pytest.mark.parametrize("kernel_name", ["reference", *FAST])
def test_a_jobs_own_epochs_override_the_training_block(kernel_name: KernelName) -> None:
    recipe, parameters = small("mlp")
    (three,) = kernels([kernel_name], recipe, parameters, local_epochs=3)
    (one,) = kernels([kernel_name], recipe, parameters, local_epochs=1)
    job = make_job(recipe, parameters, start(recipe, parameters), 9, 1)

    partial, told = trained(three, [job._replace(epochs=1), job, job._replace(epochs=2)])
    alone, _ = trained(one, [job])

    assert partial[0] == pytest.approx(alone[0], abs=1e-7)
    assert [result.steps for result in told] == [3, 9, 6]


@pytest.mark.parametrize("kernel_name", ["reference", *FAST])
def test_a_device_without_examples_gives_nothing(kernel_name: KernelName) -> None:
    recipe, parameters = small("digits-cnn")
    (kernel,) = kernels([kernel_name], recipe, parameters)
    model = start(recipe, parameters)

    updates, (result,) = trained(kernel, [make_job(recipe, parameters, model, 0, 1)])

    assert not updates.any()
    assert np.isnan(result.loss)
    assert result.steps == 0


@pytest.mark.parametrize("kernel_name", FAST)
def test_jobs_may_start_from_different_models(kernel_name: KernelName) -> None:
    recipe, parameters = small("image-cnn")
    reference, kernel = kernels(("reference", kernel_name), recipe, parameters)
    jobs = [make_job(recipe, parameters, start(recipe, parameters, seed), 6, seed) for seed in (1, 2, 3)]

    wanted, _ = trained(reference, jobs)
    updates, _ = trained(kernel, jobs)

    assert np.abs(updates - wanted).max() <= 1e-6


@pytest.mark.parametrize("kernel_name", ["reference", *FAST])
def test_outputs_and_losses_are_the_modules_own(kernel_name: KernelName) -> None:
    recipe, parameters = small("digits-cnn")
    (kernel,) = kernels([kernel_name], recipe, parameters)
    model = start(recipe, parameters)
    job = make_job(recipe, parameters, model, 600, 1)

    logits = kernel.forward(model, job.x).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    by_hand = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(600), job.y]

    assert logits.shape == (600, 10)
    assert kernel.losses(model, job.x, job.y) == pytest.approx(by_hand, rel=1e-4, abs=1e-6)
    assert kernel.forward(model, job.x[:0]).shape == (0, 10)
    assert len(kernel.losses(model, job.x[:0], job.y[:0] if job.y is not None else None)) == 0


@pytest.mark.parametrize("kernel_name", ["reference", *FAST])
def test_evaluation_between_two_calls_leaves_training_alone(kernel_name: KernelName) -> None:
    recipe, parameters = small("mlp")
    (kernel,) = kernels([kernel_name], recipe, parameters)
    job = make_job(recipe, parameters, start(recipe, parameters), 9, 1)

    before, _ = trained(kernel, [job])
    kernel.forward(start(recipe, parameters, 8), job.x)
    kernel.losses(start(recipe, parameters, 9), job.x, job.y)
    after, _ = trained(kernel, [job])

    assert np.array_equal(before, after)


@pytest.mark.parametrize("kernel_name", ["reference", *FAST])
def test_a_model_of_another_length_is_refused(kernel_name: KernelName) -> None:
    recipe, parameters = small("mlp")
    (kernel,) = kernels([kernel_name], recipe, parameters)
    job = make_job(recipe, parameters, start(recipe, parameters), 9, 1)

    with pytest.raises(ValueError, match="values where the recipe has"):
        kernel.train([job._replace(model=job.model[:-1])], np.zeros((1, kernel.n_parameters), np.float32))
