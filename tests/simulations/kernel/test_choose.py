"""The choice of a kernel: timed on the run's devices, told, and taken again from its text."""

from __future__ import annotations

import pytest
import torch
from tests.support.simulation_kernels import SketchRecipe, make_job, small, start, trained

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.choose import GROUPS, Choice, choose_kernel, read_choice
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
