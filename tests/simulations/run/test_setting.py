"""What a run starts from: sizes that travel, layers that stay, data and model from a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_play import opened
from tests.support.simulation_setting import tiny_scenario, tiny_setting
from tests.support.tiny_recipe import RECIPE

from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import ConfigError, UnsupportedError
from hedgerow.shared.packing import packed_bytes
from hedgerow.simulations.run.engines import make_engine
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import NamedScenario, find_scenario
from hedgerow.simulations.run.play import Plan, play
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.setting import last_values, make_setting, personal_values


def digits(**job: Any) -> NamedScenario:
    changes = [("job.cohort.rule", "all"), ("population.devices", 5), *job.items()]
    return find_scenario("digits-non-iid", [("job.cohort.size", None), *changes])


@pytest.mark.parametrize("packing", ["float32", "float16", "int8"])
def test_an_update_takes_what_it_takes_packed(packing: str) -> None:
    setting = tiny_setting(tiny_scenario(4, job={"packing": packing}))
    assert setting.bytes_up == packed_bytes(4, packing)  # type: ignore[arg-type]
    assert setting.bytes_down == 16


def test_scaffolds_control_variates_travel_in_float32() -> None:
    job = {"packing": "float16", "strategy": {"name": "scaffold"}}
    setting = tiny_setting(tiny_scenario(4, job=job))
    assert (setting.bytes_up, setting.bytes_down) == (8 + 16, 16 + 16)


def test_personal_layers_do_not_travel() -> None:
    setting = tiny_setting()._replace(personal=1)
    assert (setting.bytes_up, setting.bytes_down) == (12, 12)


@pytest.mark.parametrize(("tensors", "values"), [(1, 4), (2, 7), (3, 27)])
def test_the_last_tensors_are_personal(tensors: int, values: int) -> None:
    assert last_values([100, 20, 3, 4], tensors) == values


@pytest.mark.parametrize("tensors", [0, 4, 9])
def test_something_must_be_left_to_share(tensors: int) -> None:
    with pytest.raises(ConfigError, match=r"job\.strategy\.options\.personal_tensors: expected 1 to 3"):
        last_values([100, 20, 3, 4], tensors)


def test_only_fedper_keeps_layers_on_the_device() -> None:
    named = digits()
    recipe = find_recipe("digits-cnn")
    assert personal_values(named.scenario, recipe) == 0
    fedper = digits(**{"job.strategy.name": "fedper", "job.strategy.options": {"personal_tensors": 1}})
    last = [p.numel() for p in recipe.build({}).parameters()][-1]
    assert personal_values(fedper.scenario, recipe) == last


def test_a_setting_has_the_recipes_defaults_and_the_jobs_first_model() -> None:
    named = digits()
    setting = make_setting(named)
    recipe = find_recipe("digits-cnn")
    assert setting.scenario.job.parameters == recipe.check(named.scenario.job.parameters)
    model = initial_model(recipe, setting.scenario.job.parameters, named.scenario.job.seed)
    assert np.array_equal(setting.model, model)
    assert setting.population.devices == 5
    assert setting.n == model.size


def test_the_model_before_the_first_round_is_scored() -> None:
    run = opened(tiny_setting())
    state = run.begin()
    assert state.initial_scores == run.engine.score(run.setting.model)
    silent = opened(tiny_setting(tiny_scenario(4, evaluation={"central": False})))
    assert silent.begin().initial_scores == {}


def test_a_model_that_no_class_has_the_memory_for_is_refused_by_field() -> None:
    small = [{"name": "small", "memory_mib": 1e-6}]
    with pytest.raises(ConfigError, match=r"device_class: no class has the memory_mib"):
        opened(tiny_setting(tiny_scenario(4, device_class=small)))


def test_a_device_that_declines_has_no_task() -> None:
    job = {"privacy": {"mode": "example", "epsilon": 1.0, "delta": 1e-3}}
    run: Run = opened(tiny_setting(tiny_scenario(1, job=job), counts=(101,)))
    with pytest.raises(ValueError, match="device 0 declines"):
        run.task(0, 1, 1.0)


def test_an_engine_of_no_loop_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'magic' trains no tasks"):
        make_engine("magic", tiny_setting(), None, None, None)


def test_an_engine_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hedgerow.simulations.run import play as playing

    monkeypatch.setattr(playing, "FLEET_MODULE", "hedgerow.simulations.nowhere.run")
    named = find_scenario("digits-non-iid", engine="fleet")
    with pytest.raises(UnsupportedError, match=r"engine 'fleet' is not in this installation"):
        play(named, Plan(folder=tmp_path / "out"), Interrupt())
    assert not (tmp_path / "out").exists()


def test_the_tiny_recipe_of_these_tests_has_four_values() -> None:
    assert [p.numel() for p in RECIPE.build({}).parameters()] == [3, 1]
