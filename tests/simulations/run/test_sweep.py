"""Successive halving: who goes on, how long, and that every trial is charged."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.events import CentralRounds
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.run.halving import combinations, ranked, rung_rounds, survivors
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.run.sweep import Options, SweepResult, run_sweep
from hedgerow.simulations.scenario.spec import Scenario, SweepSpec

RATES = [0.001, 0.02, 0.05, 1e30]


def sweep(folder: Path, interrupt: Interrupt | None = None, **changes: Any) -> SweepResult:
    fields = changes.pop("fields", {"job.training.learning_rate": RATES})
    scenario = tiny_scenario(
        4, sweep={"fields": fields, "first_rounds": 1, "keep_one_of": 2, "trials": 4}, **changes
    )
    options = Options(
        folder=folder,
        interrupt=interrupt or Interrupt(),
        make=InProcessEngine.make,
        settle=lambda named: tiny_setting(named.scenario),
    )
    return run_sweep(NamedScenario(scenario, "tiny.toml", folder), options)


def test_all_combinations_are_tried_where_they_are_few() -> None:
    spec = SweepSpec(fields={"a": [1, 2, 3], "b": ["x", "y"]}, trials=6)
    assert combinations(spec, 1) == [{"a": a, "b": b} for a, b in itertools.product([1, 2, 3], ["x", "y"])]


def test_of_many_combinations_as_many_as_asked_are_drawn_by_the_seed() -> None:
    spec = SweepSpec(fields={"a": list(range(50)), "b": list(range(40)), "c": list(range(3))}, trials=20)
    drawn = combinations(spec, 1)
    assert len({tuple(one.values()) for one in drawn}) == 20
    assert drawn == combinations(spec, 1) != combinations(spec, 2)
    whole = [dict(zip("abc", v, strict=True)) for v in itertools.product(range(50), range(40), range(3))]
    assert all(one in whole for one in drawn)


def test_each_rung_has_so_many_times_the_rounds_and_the_last_one_left_gets_all() -> None:
    spec = SweepSpec(fields={}, first_rounds=3, keep_one_of=3)
    assert [rung_rounds(spec, rung, left, 50) for rung, left in ((0, 16), (1, 5), (2, 2))] == [3, 9, 27]
    assert rung_rounds(spec, 1, 1, 50) == 50
    assert rung_rounds(spec, 4, 2, 50) == 50


def test_the_best_go_on_whichever_way_is_better() -> None:
    scores = {0: 0.5, 1: 0.9, 2: math.nan, 3: 0.7, 4: 0.9, 5: 0.1}
    assert survivors(scores, 3, higher_is_better=True) == [1, 4]
    assert survivors(scores, 3, higher_is_better=False) == [0, 5]
    assert survivors({7: math.nan}, 3, higher_is_better=True) == [7]
    assert ranked(scores, True) == [1, 4, 3, 0, 5, 2]


def test_the_sweep_finds_the_best_rate_and_gives_it_all_rounds(tmp_path: Path) -> None:
    found = sweep(tmp_path)
    assert found.state == "finished"
    assert found.overrides == {"job.training.learning_rate": 0.05}
    assert found.best == 2
    assert [trial.rounds for trial in found.trials] == [1, 2, 3, 0]
    assert "learning_rate = 1e+30" in (found.trials[3].failed or "")


def test_the_winners_run_is_the_one_that_a_plain_run_would_be(tmp_path: Path) -> None:
    found = sweep(tmp_path)
    job = {"training": {"batch_size": 2, "learning_rate": 0.05}}
    plain = played(tiny_setting(tiny_scenario(4, job=job)))
    assert found.trials[2].score == plain.score
    best = read_toml(tmp_path / "best.toml", Scenario)
    assert (best.job.training.learning_rate, best.sweep) == (0.05, None)
    again = msgspec.json.decode((tmp_path / "sweep.json").read_bytes(), type=SweepResult)
    assert again.overrides == found.overrides


def test_every_trial_is_charged_also_those_thrown_away(tmp_path: Path) -> None:
    job = {
        "privacy": {"mode": "central-poisson", "noise_multiplier": 4.0, "delta": 1e-3},
        "cohort": {"rule": "poisson", "rate": 0.5},
    }
    found = sweep(tmp_path, job=job, fields={"job.training.learning_rate": RATES[:3]})
    rounds = sum(trial.rounds for trial in found.trials)
    assert rounds > 3
    assert found.privacy.epsilon == pytest.approx(epsilon([CentralRounds(0.5, 4.0, rounds)], 1e-3))
    assert "3 trials composed" in found.privacy.notes[0]
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert len(list(ledger)) == rounds
    ledger.close()


def test_an_interrupted_sweep_goes_on_without_charging_anything_twice(tmp_path: Path) -> None:
    whole = sweep(tmp_path / "whole")
    interrupt = Interrupt()
    scenario = tiny_scenario(
        4,
        sweep={
            "fields": {"job.training.learning_rate": RATES},
            "first_rounds": 1,
            "keep_one_of": 2,
            "trials": 4,
        },
    )

    def stop(_text: str) -> None:
        interrupt.asked = True

    options = Options(
        tmp_path / "cut",
        told=stop,
        interrupt=interrupt,
        make=InProcessEngine.make,
        settle=lambda named: tiny_setting(named.scenario),
    )
    cut = run_sweep(NamedScenario(scenario, "tiny.toml", tmp_path), options)
    assert cut.state == "interrupted"
    rest = sweep(tmp_path / "cut")
    assert rest.overrides == whole.overrides
    assert [t.score for t in rest.trials] == [t.score for t in whole.trials]


def test_examples_are_read_once_for_trials_that_share_them(tmp_path: Path) -> None:
    settled = []

    def settle(named: NamedScenario) -> Any:
        settled.append(named)
        return tiny_setting(named.scenario)

    for fields, times in (
        ({"job.training.learning_rate": [0.01, 0.02]}, 1),
        ({"job.seed": [1, 2]}, 3),  # each trial, and the winner again
    ):
        settled.clear()
        scenario = tiny_scenario(
            4, sweep={"fields": fields, "first_rounds": 1, "keep_one_of": 2, "trials": 4}
        )
        folder = tmp_path / str(times)
        run_sweep(
            NamedScenario(scenario, "tiny.toml", folder),
            Options(folder, make=InProcessEngine.make, settle=settle),
        )
        assert 1 <= len(settled) <= times
    assert len(settled) >= 2


def test_what_cannot_be_swept_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--sweep needs a"):
        run_sweep(NamedScenario(tiny_scenario(), "tiny.toml", tmp_path), Options(tmp_path))
    job = {"privacy": {"mode": "example", "epsilon": 1.0, "delta": 1e-3}}
    with pytest.raises(ConfigError, match=r"'population\.devices' cannot be swept with privacy"):
        sweep(tmp_path, fields={"population.devices": [3, 4]}, job=job)
    with pytest.raises(ConfigError, match="each with a list of values"):
        sweep(tmp_path, fields={"job.seed": []})
