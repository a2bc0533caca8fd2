"""The choice of a kernel: timed on the run's devices, told, and taken again from its text."""

from __future__ import annotations

import pytest
import torch
from tests.support.simulation_kernels import Floats, SketchRecipe, kernels, make_job, small, start, trained

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.choose import (
    GROUPS,
    MOST_STEPS,
    Choice,
    _candidates,
    choose_kernel,
    read_choice,
    shortened,
)
from hedgerow.simulations.kernel.protocol import Kernel, LocalJob, LocalResult
from hedgerow.simulations.kernel.stacked import GROUP

SPEC = TrainingSpec(batch_size=4, learning_rate=0.05)


def test_small_models_are_stacked_and_the_timings_say_why() -> None:
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, 4 + n % 9, n) for n in range(40)]

    choice = choose_kernel(recipe, parameters, SPEC, jobs, seconds=0.1)

    assert choice.name == "stacked"
    assert choice.group in GROUPS
    assert {"explicit:1", "stacked:8", "stacked:32"} <= set(choice.timings)
    assert choice.timings[choice.text] < choice.timings["explicit:1"]


def test_no_group_is_larger_than_the_run() -> None:
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, 5, n) for n in range(3)]

    assert set(choose_kernel(recipe, parameters, SPEC, jobs, seconds=0.01).timings) == {
        "explicit:1",
        "stacked:3",
    }
    assert set(choose_kernel(recipe, parameters, SPEC, jobs[:1], seconds=0.01).timings) == {"explicit:1"}


def test_a_recipe_without_kernels_gets_the_reference() -> None:
    recipe = SketchRecipe(lambda: torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()), (4,), 3)
    jobs = [make_job(recipe, {}, start(recipe, {}), 5, n) for n in range(10)]

    assert choose_kernel(recipe, {}, SPEC, jobs) == Choice("reference", 1, {})


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_nothing_to_time_means_one_device_after_another(counts: list[int]) -> None:
    recipe, parameters = small("mlp")
    jobs = [make_job(recipe, parameters, start(recipe, parameters), n, 1) for n in counts]

    assert choose_kernel(recipe, parameters, SPEC, jobs).name == "explicit"


def test_off_the_processor_devices_are_stacked_without_asking() -> None:
    recipe, parameters = small("mlp")

    assert choose_kernel(recipe, parameters, SPEC, [], device="cuda") == Choice("stacked", GROUP, {})


@pytest.mark.parametrize("text", ["reference:1", "explicit:1", "stacked:32"])
def test_a_choice_survives_the_record_and_makes_its_kernel(text: str) -> None:
    recipe, parameters = small("mlp")
    job = make_job(recipe, parameters, start(recipe, parameters), 5, 1)

    choice = read_choice(text)
    kernel = choice.make(recipe, parameters, SPEC)

    assert choice.text == text
    assert f"{kernel.name}:{kernel.group}" == text
    assert trained(kernel, [job])[0].any()


@pytest.mark.parametrize(
    "text", ["", "stacked", "stacked:", "stacked:0", "stacked:-1", "fast:1", "stacked:1e3", "stacked:10001"]
)
def test_what_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no choice"):
        read_choice(text)


def counted(jobs: list[LocalJob], spec: TrainingSpec) -> list[int]:
    """Return how many steps the reference takes for each job."""
    recipe, parameters = small("mlp")
    (kernel,) = kernels(
        ["reference"], recipe, parameters, batch_size=spec.batch_size, local_epochs=spec.local_epochs
    )
    return [result.steps for result in trained(kernel, jobs)[1]]


@pytest.mark.parametrize(
    ("counts", "epochs", "batch", "steps"),
    [
        ([8, 4], 8, 1, [64, 32]),  # just as many as are allowed: nothing is cut
        ([8, 4], 1000, 1, [64, 32]),
        ([4, 2], 1000, 4, [64, 64]),
        ([200, 100, 1], 1000, 1, [64, 32, 1]),
        ([200, 100, 1], 1, 2, [64, 32, 1]),
        ([0, 200], 3, 1, [0, 64]),
        ([3], 5, 4, [5]),
    ],
)
def test_jobs_are_timed_on_few_steps_and_keep_their_proportions(
    counts: list[int], epochs: int, batch: int, steps: list[int]
) -> None:
    spec = TrainingSpec(batch_size=batch, learning_rate=0.01, local_epochs=epochs)
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, n, n) for n in counts]

    assert counted(shortened(jobs, spec), spec) == steps


def test_a_jobs_own_epochs_are_cut_too() -> None:
    spec = TrainingSpec(batch_size=1, learning_rate=0.01, local_epochs=1)
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, 4, 1, epochs=epochs) for epochs in (500, 2)]

    assert [job.epochs for job in shortened(jobs, spec)] == [MOST_STEPS // 4, 2]


def test_private_jobs_keep_all_their_examples_and_draw_from_them_less_often() -> None:
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    plans = [StepPlan(0.1, 1.0, 0.5, steps) for steps in (6400, 3200, 1)]
    jobs = [
        make_job(recipe, parameters, model, 50, n, private=plan, noise_key=(n,))
        for n, plan in enumerate(plans)
    ]

    short = shortened(jobs, SPEC)

    assert [job.private.steps for job in short if job.private is not None] == [MOST_STEPS, MOST_STEPS // 2, 1]
    assert all(len(job.x) == 50 for job in short)
    assert shortened(jobs[2:], SPEC) == jobs[2:]


def test_a_thousand_epochs_are_not_trained_to_choose_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TrainingSpec(batch_size=1, learning_rate=0.01, local_epochs=1000)
    recipe, parameters = small("mlp")
    model = start(recipe, parameters)
    jobs = [make_job(recipe, parameters, model, 60, n) for n in range(8)]
    taken: list[int] = []

    class Counting:
        """A kernel that says how many steps it was asked for."""

        def __init__(self, kernel: Kernel) -> None:
            self.kernel, self.group, self.room = kernel, kernel.group, kernel.room

        def train(self, jobs: list[LocalJob], out: Floats) -> list[LocalResult]:
            results = self.kernel.train(jobs, out)
            taken.append(max(result.steps for result in results))
            return results

    made = Choice.make
    monkeypatch.setattr(Choice, "make", lambda *args: Counting(made(*args)))

    choice = choose_kernel(recipe, parameters, spec, jobs, seconds=0.01)

    assert len(choice.timings) >= 2
    assert max(taken) <= MOST_STEPS


def test_a_model_of_millions_of_values_is_not_stacked_to_see() -> None:
    assert [choice.name for choice in _candidates(1 << 20, 100)] == ["explicit", "stacked"]
    assert [choice.name for choice in _candidates((1 << 20) + 1, 100)] == ["explicit"]
