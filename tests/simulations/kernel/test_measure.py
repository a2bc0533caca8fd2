"""The developers' measurement: operations counted by hand, the plain loop trains like the reference, and a table comes out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tests.support.simulation_kernels import kernels, make_job, small, start
from torch import nn

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.measure import as_private, best_turns, example_flop, make_jobs
from hedgerow.simulations.kernel.network import read_network
from hedgerow.simulations.kernel.plain_loop import PlainLoop


def test_operations_of_one_example_are_those_of_its_gemms() -> None:
    dense = read_network(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), (5,))
    image = read_network(find_recipe("image-cnn").build(find_recipe("image-cnn").check({})), (28, 28, 1))

    assert example_flop(dense) == 2 * (2 * 5 * 4) + 3 * (2 * 4 * 3)
    first, second = 2 * 784 * 9 * 16, 2 * 196 * 144 * 32
    assert example_flop(image) == 2 * first + 3 * (second + 2 * 1568 * 32 + 2 * 32 * 10)
    assert image.n_parameters == 55_338


def test_the_plain_loop_trains_as_the_reference_does() -> None:
    recipe, parameters = small("digits-cnn")
    spec = TrainingSpec(batch_size=4, learning_rate=0.05, momentum=0.5, local_epochs=2)
    (reference,) = kernels(["reference"], recipe, parameters, momentum=0.5, local_epochs=2)
    jobs = [make_job(recipe, parameters, start(recipe, parameters), n, n) for n in (0, 3, 9)]
    loop, wanted = (np.empty((3, reference.n_parameters), np.float32) for _ in range(2))

    PlainLoop(recipe, parameters, spec).train(jobs, loop)
    reference.train(jobs, wanted)

    assert loop == pytest.approx(wanted, abs=1e-6)


def test_private_jobs_expect_a_batch_a_step_for_one_epoch() -> None:
    recipe, parameters = small("mlp")
    jobs = as_private(make_jobs(recipe, parameters, [8, 10], 1), 4)

    assert [(job.private.sampling_rate, job.private.steps) for job in jobs if job.private] == [
        (0.5, 2),
        (0.4, 3),
    ]
    assert len({job.noise_key for job in jobs}) == 2


def test_everyone_gets_a_turn_to_warm_up_and_the_best_one_counts() -> None:
    calls: list[str] = []

    best = best_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.01)

    assert calls[:4] == ["a", "b", "a", "b"]
    assert set(best) == {"a", "b"}
    assert all(0 <= used < 0.01 for used in best.values())


@pytest.mark.slow
def test_the_command_prints_a_line_for_every_contestant() -> None:
    command = [
        sys.executable,
        "-m",
        "hedgerow.simulations.kernel.measure",
        "mlp",
        "--jobs",
        "3",
        "--seconds",
        "0.2",
    ]

    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    assert shown[0].startswith("mlp: 2410 parameters")
    names = [line[2:16].strip() for line in shown[1:]]
    assert names == ["plain loop", "explicit", "explicit DP", "stacked", "stacked DP"]
    assert shown[1].endswith("1.00 ×")
