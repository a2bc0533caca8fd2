"""What the engine refuses before Flower is started, and what a message says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_lean import digits_population, make_scenario, tasks, tiny_population
from tests.support.tiny_recipe import TinyRecipe

from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Batch, Task
from hedgerow.simulations.flower.engine import FlowerEngine
from hedgerow.simulations.flower.runtime import Runtime, drop_folder, new_folder
from hedgerow.simulations.flower.values import REFERENCE, World
from hedgerow.simulations.lean.engine import LeanEngine

COUNTS = [5, 3, 7]


def engine(**options: Any) -> FlowerEngine:
    return FlowerEngine(make_scenario("digits-cnn", 3), DIGITS, digits_population(COUNTS), **options)


@pytest.mark.parametrize("workers", [0, -1, 1025])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: int) -> None:
    with pytest.raises(ConfigError, match="workers: expected a number from 1 to 1024"):
        engine(workers=workers)


def test_choices_of_a_kernel_that_flower_does_not_use_are_refused() -> None:
    with pytest.raises(ConfigError, match="engine flower trains with 'reference:1', not 'stacked:8'"):
        engine(choices={"kernel": "stacked:8"})


def test_an_engine_that_is_not_open_says_so() -> None:
    with pytest.raises(EngineError, match="not open"):
        engine().train(Batch([np.zeros(3, np.float32)], tasks([0])))


def test_closing_what_was_never_opened_does_nothing() -> None:
    with engine() as one:
        one.close()


def test_a_recipe_that_cannot_be_handed_on_is_named() -> None:
    class Local(TinyRecipe):
        name = "local"

    folder = new_folder()
    try:
        world = World(make_scenario("local", 1), Local(), tiny_population([2]), folder)
        with pytest.raises(ConfigError, match="recipe local: engine flower hands it to other processes"):
            Runtime(world, 1, folder)
    finally:
        drop_folder(folder)


def test_folders_are_short_enough_for_rays_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = new_folder()
    try:
        assert len(str(folder)) <= 50
        assert folder.is_dir()
    finally:
        drop_folder(folder)
    assert not folder.exists()


@pytest.mark.slow
def test_a_message_carries_a_task_and_its_answer_the_update() -> None:
    from flwr.app import ArrayRecord

    from hedgerow.simulations.flower.client import outcome_of, question, trained, vector

    model = _model()
    task = Task(device=1, round=4, version=3, weight=0.25)
    with _here() as here:
        answer = trained(question(task, ArrayRecord([model]), None), here)
        direct = here.train(Batch([model], tasks([1], 4), "each"))
    assert np.array_equal(vector(answer["update"]), direct.updates[1])
    assert outcome_of(answer).n_samples == COUNTS[1]
    assert outcome_of(answer).loss == direct.outcomes[0].loss
    assert "control" not in answer


@pytest.mark.slow
def test_an_update_that_does_not_count_is_not_sent() -> None:
    from flwr.app import ArrayRecord

    from hedgerow.simulations.engine.protocol import Attack
    from hedgerow.simulations.flower.client import outcome_of, question, trained

    task = Task(device=0, round=1, attack=Attack("nan"))
    with _here() as here:
        answer = trained(question(task, ArrayRecord([_model()]), None), here)
    assert "update" not in answer
    assert outcome_of(answer).rejected == "non-finite"


def _here() -> LeanEngine:
    made = LeanEngine(
        make_scenario("digits-cnn", 3), DIGITS, digits_population(COUNTS), workers=0, choices=REFERENCE
    )
    made.open()
    return made


def _model() -> Any:
    import torch

    from hedgerow.edge_agent.trainer.flat import FlatParameters

    torch.manual_seed(3)
    return FlatParameters(DIGITS.build(DIGITS.check({}))).values()
