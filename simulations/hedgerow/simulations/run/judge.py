"""How a model is judged: on the held-out set, over devices, over cohorts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.protocol import DeviceScores, Engine
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.scenario.spec import Scenario


class Judgement(NamedTuple):
    """What a ``RoundRecord`` says of scores."""

    scores: dict[str, float]
    device_mean: float | None = None
    device_quantiles: tuple[float, float, float] | None = None
    cohorts: Mapping[str, float] = MappingProxyType({})


def is_due(scenario: Scenario, round: int, last: int) -> bool:
    """Return whether ``round`` is followed by an evaluation."""
    return round % scenario.evaluation.every == 0 or round >= last


def judge(engine: Engine, scenario: Scenario, population: Population, model: Vector, round: int) -> Judgement:
    """Return the scores that the scenario asks for after ``round``; what is not finite is left out, as JSON has no word for it."""
    spec = scenario.evaluation
    scores = central_scores(engine, model) if spec.central else {}
    if not spec.per_device and spec.cohorts == "none":
        return Judgement(scores)
    found = score_devices(engine, population, model, round)
    if found is None:
        return Judgement(scores)
    values = value_of(found)
    if not spec.per_device:
        return Judgement(scores, cohorts=_by_cohort(scenario, population, found, values))
    cohorts = _by_cohort(scenario, population, found, values)
    if not np.isfinite(values).all():
        return Judgement(scores, cohorts=cohorts)
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return Judgement(scores, float(values.mean()), (float(low), float(middle), float(high)), cohorts)


def central_scores(engine: Engine, model: Vector) -> dict[str, float]:
    """Return the scores on the held-out set that are finite: a model that fell apart has no others."""
    return {name: value for name, value in engine.score(model).items() if math.isfinite(value)}


def score_devices(engine: Engine, population: Population, model: Vector, round: int) -> DeviceScores | None:
    """Return scores of all devices that have held-out examples; None where no device has."""
    if population.device_test is None:
        return None
    tested = np.flatnonzero(np.diff(population.device_test.offsets))
    return engine.score_devices(model, tested.tolist(), round) if tested.size else None


def scores_by_device(found: DeviceScores | None) -> dict[int, dict[str, float | None]]:
    """Return ``score`` and ``loss`` as a ``DeviceRecord`` has them, None for what is not finite, of each device that was scored."""
    if found is None:
        return {}
    table = zip(found.devices.tolist(), found.score.tolist(), found.loss.tolist(), strict=True)
    return {device: {"score": _known(score), "loss": _known(loss)} for device, score, loss in table}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def value_of(found: DeviceScores) -> npt.NDArray[np.float64]:
    """Return what counts of each device: its score, or its loss where the task has no score."""
    return np.where(np.isnan(found.score), found.loss, found.score)


def _by_cohort(
    scenario: Scenario, population: Population, found: DeviceScores, values: npt.NDArray[np.float64]
) -> dict[str, float]:
    if scenario.evaluation.cohorts == "none":
        return {}
    if scenario.evaluation.cohorts == "group":
        names, belongs = population.group_names, population.group[found.devices]
    else:
        names = tuple(one.name for one in scenario.device_class)
        belongs = population.device_class[found.devices]
    means = {
        name: float(values[belongs == at].mean()) for at, name in enumerate(names) if (belongs == at).any()
    }
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
