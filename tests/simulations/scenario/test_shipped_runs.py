"""The shipped scenarios, really run for a few rounds: they learn something, and lose nothing that they promise."""

from __future__ import annotations

import math

import pytest

from hedgerow.simulations.run.api import run
from hedgerow.simulations.run.names import shipped

SHORT = {
    "anomaly-fleet": [("population.devices", 6)],
    "async-stragglers": [("population.options.samples", 2500)],
    "digits-non-iid": [],
    "drift": [("population.drift.from_round", 2)],
    "poisoned-devices": [("faults.byzantine.from_round", 2)],
    "thousand-devices": [("evaluation.every", 1)],
}


def test_each_shipped_scenario_is_tried_here() -> None:
    assert sorted(SHORT) == sorted(path.stem for path in shipped())


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("name", sorted(SHORT))
def test_it_runs_and_its_records_are_whole(name: str) -> None:
    result = run(name, rounds=3, workers=2, overrides=SHORT[name])
    scores = [record.scores[result.metric] for record in result.rounds if result.metric in record.scores]

    assert result.state == "finished"
    assert [record.round for record in result.rounds] == [1, 2, 3]
    assert all(math.isfinite(score) for score in scores)
    assert scores
    assert all(record.counted > 0 for record in result.rounds)
    assert result.rounds[-1].simulated_s > 0
    assert (result.rounds[-1].epsilon is None) == (result.privacy.mode == "none")
    assert (result.rounds[-1].device_mean is not None) == (
        name in ("anomaly-fleet", "digits-non-iid", "drift")
    )
