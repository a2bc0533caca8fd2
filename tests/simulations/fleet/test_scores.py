"""The last model of a fleet on what its devices were not given to store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.simulation_results import result_of
from tests.support.simulation_scenarios import scenario

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.models.recipe import find_recipe
from hedgerow.simulations.engine.protocol import DeviceScores
from hedgerow.simulations.fleet.scores import FleetScores, score_fleet, wanted, with_scores
from hedgerow.simulations.population.build import build_population
from hedgerow.simulations.population.raw import raw_population
from hedgerow.simulations.run.judge import Judgement
from hedgerow.simulations.run.records import DeviceRecord
from hedgerow.simulations.scenario.spec import Scenario

MLP: dict[str, Any] = {"job__recipe": "mlp", "job__parameters": {"hidden": []}, "population__devices": 4}


def asking(**changes: Any) -> Scenario:
    fields = {"population__test_share": 0.2, "evaluation__per_device": True, **MLP, **changes}
    made = scenario(**fields)
    recipe = find_recipe(made.job.recipe)
    parameters = recipe.check(made.job.parameters)
    return scenario(**{**fields, "job__parameters": parameters})


def test_scores_are_wanted_where_the_scenario_asks_and_has_examples_for_it() -> None:
    assert wanted(asking())
    assert wanted(scenario(population__test_share=0.1, evaluation__cohorts="device-class", **MLP))
    assert not wanted(scenario(population__test_share=0.1, **MLP))


def test_each_device_is_scored_on_its_own_examples_by_the_recipes_loss() -> None:
    made = asking()
    recipe = find_recipe("mlp")
    model = initial_model(recipe, made.job.parameters, 5) + np.float32(0.01)

    found = score_fleet(made, recipe, Path(), model, 3)

    test = build_population(made, recipe, Path()).device_test
    assert test is not None
    assert found.devices is not None and found.devices.devices.tolist() == [0, 1, 2, 3]
    module = recipe.build(made.job.parameters)
    FlatParameters(module).load(model)
    module.eval()
    for device in range(4):
        x, y = test.of(device)
        assert y is not None and len(x) > 10
        with torch.no_grad():
            loss = recipe.loss(module, torch.from_numpy(x), torch.from_numpy(y)).mean()
            hits = module(torch.from_numpy(x)).argmax(dim=1).numpy() == y
        assert found.devices.loss[device] == pytest.approx(float(loss), rel=1e-5)
        assert found.devices.score[device] == hits.mean()
    assert found.judgement.device_mean == pytest.approx(found.devices.score.mean())
    assert found.judgement.scores == {}
    assert found.groups == ("all",) * 4


def test_what_a_device_stores_is_not_what_it_is_scored_on() -> None:
    made = asking(job__recipe="digits-cnn", job__parameters={})
    recipe = find_recipe("digits-cnn")
    raw, population = raw_population(made, recipe, Path()), build_population(made, recipe, Path())
    assert population.device_test is not None
    stored = {one.tobytes() for device in raw.at(1) for one in np.asarray(device.samples, np.uint8)}
    trained = {one.tobytes() for one in population.at(1).x}
    tested = {one.tobytes() for one in population.device_test.x}

    assert len(stored) == len(trained)
    # A few digits of the set are drawn twice, pixel by pixel.
    assert len(tested & trained) <= 2


def device_of(number: int) -> DeviceRecord:
    return DeviceRecord(number, "board", "all", 10 + number, 2, 100, 200, 0.0)


def test_records_get_the_scores_of_their_devices_and_the_last_round_the_rest() -> None:
    result = result_of(2, device_records=tuple(device_of(n) for n in range(2)))
    judgement = Judgement({}, 0.5, (0.1, 0.5, 0.9), {"board": 0.5})
    found = FleetScores(
        DeviceScores(np.arange(2), np.array([1.5, np.nan]), np.array([0.25, np.nan])), ("a", "b"), judgement
    )

    rounds, devices = with_scores(result.rounds, result.device_records, found)

    assert rounds[0] == result.rounds[0]
    assert (rounds[1].device_mean, rounds[1].device_quantiles) == (0.5, (0.1, 0.5, 0.9))
    assert (rounds[1].cohorts, rounds[1].scores) == ({"board": 0.5}, result.rounds[1].scores)
    assert [(one.group, one.score, one.loss) for one in devices] == [("a", 0.25, 1.5), ("b", None, None)]
    assert [one.n_samples for one in devices] == [one.n_samples for one in result.device_records]
