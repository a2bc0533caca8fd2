"""How a fleet's last model does on each device's own held-out examples.

Devices report no scores. But a fleet's data are simulated: what a device was not given to store is known here, and is scored
here, by the code that scores it in the other engines. It stands for no release of a real fleet.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from hedgerow.models.recipe import Recipe
from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.protocol import DeviceScores
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.population.build import build_population
from hedgerow.simulations.run.judge import Judgement, judge, score_devices, scores_by_device
from hedgerow.simulations.run.records import DeviceRecord, RoundRecord
from hedgerow.simulations.scenario.spec import Scenario


class FleetScores(NamedTuple):
    """Scores of the devices that have held-out examples, if any has; all groups; and what the last round's record says of them."""

    devices: DeviceScores | None
    groups: tuple[str, ...]
    judgement: Judgement


def wanted(scenario: Scenario) -> bool:
    """Return whether a scenario asks for scores over devices, and has held-out examples to take them from."""
    evaluation = scenario.evaluation
    return (evaluation.per_device or evaluation.cohorts != "none") and scenario.population.test_share > 0


def score_fleet(scenario: Scenario, recipe: Recipe, base: Path, model: Vector, round: int) -> FleetScores:
    """Return scores of ``model``, float32 ``(n,)``, as it was after ``round``; builds the population again, in this process."""
    devices_only = msgspec.structs.replace(scenario.evaluation, central=False)
    scenario = msgspec.structs.replace(scenario, evaluation=devices_only)
    population = build_population(scenario, recipe, base)
    with LeanEngine(scenario, recipe, population, workers=0, choices={"kernel": "reference:1"}) as engine:
        engine.open()
        judgement = judge(engine, scenario, population, model, round)
        found = score_devices(engine, population, model, round)
    groups = tuple(population.group_name(device) for device in range(population.devices))
    return FleetScores(found, groups, judgement)


def with_scores(
    rounds: tuple[RoundRecord, ...], devices: tuple[DeviceRecord, ...], found: FleetScores
) -> tuple[tuple[RoundRecord, ...], tuple[DeviceRecord, ...]]:
    """Return the records with the scores in them: of the devices, and of the last round."""
    judged, scores = found.judgement, scores_by_device(found.devices)
    last = msgspec.structs.replace(
        rounds[-1],
        device_mean=judged.device_mean,
        device_quantiles=judged.device_quantiles,
        cohorts=dict(judged.cohorts),
    )
    scored = tuple(
        msgspec.structs.replace(one, group=found.groups[one.device], **scores.get(one.device, {}))
        for one in devices
    )
    return (*rounds[:-1], last), scored
