"""Every engine gets the same: a task survives its folder, cohorts and batches follow from numbers, networks are the recipes'."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import TrainingSet, find_recipe
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.bench.simulation_peers.local import train_plain
from hedgerow.simulations.bench.simulation_peers.nets import as_input, as_vector, load_vector, make_net
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, read_task, write_task
from hedgerow.simulations.bench.simulation_run.workloads import (
    WORKLOADS,
    dirichlet_order,
    image_task,
    make_task,
)


@pytest.fixture(scope="module")
def tasks() -> dict[str, PeerTask]:
    quick = {name: make_task(name) for name in ("digits", "mlp", "autoencoder")}
    return {**quick, "synth28": image_task(600, 20)}


@pytest.mark.parametrize("family", ["digits", "mlp", "autoencoder", "synth28"])
def test_a_task_is_the_same_when_made_again(tasks: dict[str, PeerTask], family: str) -> None:
    again = image_task(600, 20) if family == "synth28" else make_task(family)
    assert np.array_equal(again.x, tasks[family].x)
    assert np.array_equal(again.offsets, tasks[family].offsets)
    assert np.array_equal(again.model, tasks[family].model)


@pytest.mark.parametrize("family", ["digits", "autoencoder"])
def test_a_task_survives_its_folder(tasks: dict[str, PeerTask], family: str, tmp_path: Path) -> None:
    task = tasks[family]
    write_task(task, tmp_path)
    read = read_task(tmp_path)
    for name in ("x", "offsets", "model"):
        assert np.array_equal(getattr(read, name), getattr(task, name))
        assert getattr(read, name).dtype == getattr(task, name).dtype
    assert (read.y is None) == (task.y is None)
    assert (read.net, read.recipe, read.seed, read.batch) == (task.net, task.recipe, task.seed, task.batch)


def test_the_first_models_have_the_sizes_that_the_workloads_name(tasks: dict[str, PeerTask]) -> None:
    assert len(tasks["synth28"].model) == 55_338
    assert len(tasks["mlp"].model) == 2_410
    assert {workload.family for workload in WORKLOADS.values()} == set(tasks)


def test_every_family_has_as_many_devices_as_its_largest_cohort(tasks: dict[str, PeerTask]) -> None:
    for workload in WORKLOADS.values():
        if workload.family != "synth28":
            assert tasks[workload.family].devices >= workload.cohort


def test_every_example_belongs_to_one_device(tasks: dict[str, PeerTask]) -> None:
    for task in tasks.values():
        assert task.offsets[0] == 0
        assert task.offsets[-1] == len(task.x)
        assert min(task.count(device) for device in range(task.devices)) >= 3


def test_cohorts_are_drawn_anew_each_round_and_repeat_when_asked_again(tasks: dict[str, PeerTask]) -> None:
    task = tasks["digits"]
    drawn = [task.cohort(round, 10) for round in range(1, 30)]
    assert drawn == [task.cohort(round, 10) for round in range(1, 30)]
    assert all(len(set(cohort)) == 10 and cohort == sorted(cohort) for cohort in drawn)
    assert len({tuple(cohort) for cohort in drawn}) > 25
    assert task.cohort(3, task.devices) == list(range(task.devices))
    assert task.samples(3, task.devices) == len(task.x)


def test_rows_are_a_devices_own_in_another_order_each_round(tasks: dict[str, PeerTask]) -> None:
    task = tasks["digits"]
    device = max(range(task.devices), key=task.count)
    own = np.arange(task.offsets[device], task.offsets[device + 1])
    first, second = task.rows(1, device), task.rows(2, device)
    assert np.array_equal(np.sort(first), own)
    assert np.array_equal(np.sort(second), own)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("family", ["digits", "mlp", "autoencoder", "synth28"])
def test_a_users_network_gives_what_the_recipes_gives(tasks: dict[str, PeerTask], family: str) -> None:
    task = tasks[family]
    recipe = find_recipe(task.recipe)
    module = recipe.build(task.parameters)
    FlatParameters(module).load(task.model)
    net = make_net(task.net)
    load_vector(net, task.model)
    x = task.x[:7]
    with torch.no_grad():
        theirs = module(torch.from_numpy(x.copy())).reshape(7, -1)
        assert torch.allclose(net(as_input(task.net, x.copy())), theirs, atol=1e-6)
    assert np.array_equal(as_vector(net), task.model)


@pytest.mark.parametrize("family", ["digits", "mlp", "autoencoder", "synth28"])
def test_a_users_epoch_is_that_of_a_devices_trainer(tasks: dict[str, PeerTask], family: str) -> None:
    task = tasks[family]
    recipe, device = find_recipe(task.recipe), 4
    part = slice(int(task.offsets[device]), int(task.offsets[device + 1]))
    data = TrainingSet(task.x[part], None if task.y is None else task.y[part])
    trainer = PlainTrainer(recipe, recipe.build(task.parameters), data)
    spec = TrainingSpec(batch_size=task.batch, learning_rate=task.learning_rate)
    expected = trainer.train(task.model, spec, (task.seed, 2, device)).delta
    net = make_net(task.net)
    load_vector(net, task.model)
    rows = task.rows(2, device)
    y = None if task.y is None else torch.from_numpy(task.y[rows])
    state = train_plain(net, as_input(task.net, task.x[rows]), y, task.batch, task.learning_rate)
    net.load_state_dict(state)
    assert np.abs(expected).max() > 1e-5
    assert np.abs(as_vector(net) - task.model - expected).max() < 1e-6


def test_a_small_alpha_gives_devices_few_classes() -> None:
    labels = np.repeat(np.arange(10), 400)
    kinds = []
    for alpha in (0.5, 100.0):
        rows, offsets = dirichlet_order(labels, 20, alpha, 1)
        assert np.array_equal(np.sort(rows), np.arange(4000))
        shares = [np.bincount(labels[rows[a:b]], minlength=10) for a, b in itertools.pairwise(offsets)]
        kinds.append(np.mean([(share / share.sum()).max() for share in shares]))
    assert kinds[0] > 0.25 > kinds[1]
