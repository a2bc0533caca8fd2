"""Judging a model: what is due when, over devices, over cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.simulations.engine.protocol import DeviceScores
from hedgerow.simulations.run.judge import is_due, judge, score_devices, value_of


class Scores:
    """An engine of which only the scores are asked; ``asked`` remembers for which devices."""

    def __init__(self, score: Sequence[float], loss: Sequence[float]) -> None:
        self._score, self._loss = np.array(score), np.array(loss)
        self.asked: list[int] = []

    def score(self, model: Any) -> dict[str, float]:
        return {"error": 0.5}

    def score_devices(self, model: Any, devices: Sequence[int], round: int) -> DeviceScores:
        self.asked = list(devices)
        at = np.array(self.asked)
        return DeviceScores(at, self._loss[at], self._score[at])


SCORES = Scores([0.1, 0.2, 0.3, 0.8], [9.0, 8.0, 7.0, 6.0])


def judged(
    engine: Any = SCORES, tests: int = 2, classes: tuple[int, ...] = (0, 1, 1, 0), **evaluation: Any
) -> Any:
    boards = [{"name": "board"}, {"name": "gateway"}]
    scenario = tiny_scenario(4, evaluation=evaluation, device_class=boards)
    setting = tiny_setting(scenario, classes=classes, tests=tests)
    return judge(engine, scenario, setting.population, setting.model, 1)


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_scores_are_due_every_so_many_rounds_and_after_the_last(every: int, due: list[int]) -> None:
    scenario = tiny_scenario(4, evaluation={"every": every})
    assert [round for round in range(1, 6) if is_due(scenario, round, 5)] == due


def test_only_what_the_scenario_asks_for_is_looked_at() -> None:
    found = judged()
    assert found.scores == {"error": 0.5}
    assert (found.device_mean, found.device_quantiles, dict(found.cohorts)) == (None, None, {})
    assert judged(central=False).scores == {}


def test_devices_give_a_mean_and_quantiles() -> None:
    found = judged(per_device=True)
    assert found.device_mean == pytest.approx(0.35)
    assert found.device_quantiles == pytest.approx((0.13, 0.25, 0.65))
    assert dict(found.cohorts) == {}


def test_cohorts_are_groups_or_device_classes() -> None:
    assert dict(judged(cohorts="group").cohorts) == pytest.approx({"even": 0.2, "odd": 0.5})
    found = judged(cohorts="device-class")
    assert dict(found.cohorts) == pytest.approx({"board": 0.45, "gateway": 0.25})
    assert found.device_mean is None


def test_a_cohort_of_nobody_has_no_score() -> None:
    assert set(judged(cohorts="device-class", classes=(0, 0, 0, 0)).cohorts) == {"board"}


def test_without_labels_losses_stand_in_for_scores() -> None:
    found = value_of(DeviceScores(np.arange(3), np.array([1.0, 2.0, 3.0]), np.array([np.nan, 0.5, np.nan])))
    assert found.tolist() == [1.0, 0.5, 3.0]


def test_devices_without_held_out_examples_are_not_asked() -> None:
    engine = Scores([0.1, 0.2, 0.3, 0.8], [9.0] * 4)
    setting = tiny_setting(tests=2)
    assert score_devices(engine, setting.population, setting.model, 1) is not None  # type: ignore[arg-type]
    assert engine.asked == [0, 1, 2, 3]
    bare = tiny_setting()
    assert score_devices(engine, bare.population, bare.model, 1) is None  # type: ignore[arg-type]
    assert judged(tests=0, per_device=True).device_mean is None
