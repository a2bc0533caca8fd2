"""Models that fell apart, and devices of which none will: the run says so in words and keeps what it has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import opened, played
from tests.support.simulation_results import result_of, round_of, with_rounds
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.simulations.engine.protocol import DeviceScores, Vector
from hedgerow.simulations.report.write import write_report
from hedgerow.simulations.run.fedbuff import play_release
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.play import Plan, play_setting
from hedgerow.simulations.run.records import NO_SCORE, Result
from hedgerow.simulations.run.results import read_result

ODD = [math.nan, math.inf, -math.inf]


class FallingApart(InProcessEngine):
    """Trains as always; its scores are ``odd`` from the model of ``round`` on, on devices only on the first."""

    odd = math.nan
    calls = 0
    begins_at = 2

    def score(self, model: Vector) -> dict[str, float]:
        self.calls += 1
        found = super().score(model)
        return found if self.calls <= self.begins_at else dict.fromkeys(found, self.odd)

    def score_devices(self, model: Vector, devices: Sequence[int], round: int) -> DeviceScores:
        found = super().score_devices(model, devices, round)
        found.loss[0] = self.odd
        return found


def fell_apart(folder: Path, odd: float, **evaluation: Any) -> Result:
    scenario = tiny_scenario(
        4, evaluation=evaluation, population={"devices": 4, "test_share": 0.5}, job={"rounds": 3}
    )

    def make(name: str, setting: Any, *rest: Any) -> FallingApart:
        engine = FallingApart(setting)
        engine.odd = odd
        return engine

    return play_setting(tiny_setting(scenario, tests=2), Plan(folder=folder), Interrupt(), make)


@pytest.mark.parametrize("odd", ODD)
def test_a_run_without_finite_scores_keeps_its_result_and_its_report(tmp_path: Path, odd: float) -> None:
    found = fell_apart(tmp_path, odd, per_device=True, cohorts="group")

    assert found.state == "finished"
    assert [sorted(record.scores) for record in found.rounds] == [["error"], [], []]
    assert [NO_SCORE in record.events for record in found.rounds] == [False, True, True]
    assert found == read_result(tmp_path)
    assert write_report(found, tmp_path)[-1].name == "report.html"


@pytest.mark.parametrize("odd", ODD)
def test_devices_that_fell_apart_leave_no_mean_and_their_cohort_no_score(tmp_path: Path, odd: float) -> None:
    found = fell_apart(tmp_path, odd, per_device=True, cohorts="group")
    last = found.rounds[-1]

    assert (last.device_mean, last.device_quantiles) == (None, None)
    # Device 0 is even: the odd ones are judged all the same.
    assert set(last.cohorts) == {"odd"}
    assert [record.loss is None for record in found.device_records] == [True, False, False, False]


def test_the_score_is_of_the_model_judged_last_and_of_no_earlier_one(tmp_path: Path) -> None:
    assert fell_apart(tmp_path, math.nan).score is None
    # A round that was not due to be judged says nothing of the model.
    assert with_rounds(round_of(1), round_of(2, scores={})).score == pytest.approx(0.1)
    assert with_rounds(round_of(1), round_of(2, scores={}, events=(NO_SCORE,))).score is None
    assert with_rounds(round_of(1, scores={}, events=(NO_SCORE,)), round_of(2)).score == pytest.approx(0.2)
    assert result_of(0).score is None


def test_a_run_that_is_not_judged_in_the_centre_is_not_told_to_have_no_score(tmp_path: Path) -> None:
    found = fell_apart(tmp_path, math.nan, central=False)

    assert all(record.events == () for record in found.rounds)
    assert found.score is None


def buffered(devices: int, willing: int) -> Any:
    """Return an asynchronous run in which all but ``willing`` devices have too many examples for this δ."""
    job = {
        "strategy": {"name": "fedbuff", "options": {"buffer_size": 1, "concurrency": 1}},
        "privacy": {"mode": "example", "epsilon": 4.0, "delta": 0.04},
    }
    counts = [3] * (devices - willing) + [2] * willing
    return opened(tiny_setting(tiny_scenario(devices, job=job), counts=counts))


def test_thousands_that_decline_are_passed_over_until_one_takes_part() -> None:
    run = buffered(6000, 1)
    record = play_release(run, state := run.begin())

    assert (record.drawn, record.counted) == (1, 1)
    assert np.flatnonzero(state.totals.rounds).tolist() == [5999]


def test_when_all_decline_the_run_ends_and_says_that_nobody_could(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hedgerow.simulations.run.fedbuff._TRIES", 50)
    run = buffered(3000, 0)

    with pytest.raises(ConfigError, match="nobody who could take part was there in 50 deadlines"):
        play_release(run, run.begin())


def test_when_nobody_ever_answers_the_run_ends_and_names_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hedgerow.simulations.run.fedbuff._TRIES", 200)
    job = {"strategy": {"name": "fedbuff", "options": {"buffer_size": 2, "concurrency": 3}}}
    run = opened(tiny_setting(tiny_scenario(4, job=job, faults={"dropout": 1.0})))

    with pytest.raises(ConfigError, match=r"faults\.dropout: none of 200 devices in a row answered"):
        play_release(run, run.begin())


def test_a_few_that_answer_are_waited_for_however_many_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hedgerow.simulations.run.fedbuff._TRIES", 200)
    job = {"strategy": {"name": "fedbuff", "options": {"buffer_size": 2, "concurrency": 3}}}
    run = opened(tiny_setting(tiny_scenario(4, job=job, faults={"dropout": 0.9})))
    state = run.begin()
    records = [play_release(run, state) for _ in range(5)]

    assert [record.counted for record in records] == [2] * 5
    assert sum(record.dropped for record in records) > 20


@pytest.mark.parametrize(
    ("server", "local", "named"),
    [
        (
            1e30,
            0.05,
            r"round 2: .*job\.strategy\.server_learning_rate = 1e\+30, or job\.training\.learning_rate = 0\.05",
        ),
        (1e30, 1e30, r"round 1: .*\); job\.training\.learning_rate = 1e\+30 is likely"),
        (1.0, 1e30, r"round 1: .*\); job\.training\.learning_rate = 1e\+30 is likely"),
    ],
)
def test_the_rate_that_is_likely_at_fault_is_named(server: float, local: float, named: str) -> None:
    job = {
        "rounds": 3,
        "strategy": {"name": "fedavg", "server_learning_rate": server},
        "training": {"batch_size": 2, "learning_rate": local},
    }

    with pytest.raises(ContentError, match=named):
        played(tiny_setting(tiny_scenario(4, job=job)))


def test_an_engine_that_cannot_be_made_leaves_the_ledger_closed(tmp_path: Path) -> None:
    def refuse(*given: Any) -> Any:
        raise ConfigError("no such engine")

    setting = tiny_setting()
    # An unclosed file is a warning, and warnings are errors in these tests.
    with pytest.raises(ConfigError, match="no such engine"):
        play_setting(setting, Plan(folder=tmp_path), Interrupt(), refuse)
    (tmp_path / "ledger.jsonl").unlink()
    assert played(setting, tmp_path).state == "finished"
