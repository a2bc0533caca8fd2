"""What trials of a sweep have in common, and what is each trial's own: noise, and the draws that ε is computed from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_lean import batch, digits_population, make_scenario, tasks
from tests.support.simulation_play import played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.simulations.engine.protocol import Answer, Batch, Task
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.run.cohort import draw
from hedgerow.simulations.run.draws import cohort_seed, noise_seed
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.run.play import Plan, play_setting
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.results import read_result
from hedgerow.simulations.run.setting import Setting
from hedgerow.simulations.run.sweep import Options, SweepResult, run_sweep

EXAMPLE: dict[str, Any] = {"privacy": {"mode": "example", "epsilon": 4.0, "delta": 1e-3}}
CENTRAL: dict[str, Any] = {
    "privacy": {"mode": "central-poisson", "noise_multiplier": 2.0, "delta": 1e-3},
    "cohort": {"rule": "poisson", "rate": 0.5},
}
SOME = {"cohort": {"rule": "fixed", "size": 2}}
FAULTS = {"dropout": 0.3}


class Recording(InProcessEngine):
    """The engine of this process, which keeps the tasks that it was given."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.tasks: list[Task] = []

    def train(self, batch: Batch) -> Answer:
        self.tasks += batch.tasks
        return super().train(batch)


def setting_of(**job: Any) -> Setting:
    scenario = tiny_scenario(6, job={"rounds": 5, **job}, faults=FAULTS)
    return tiny_setting(scenario, counts=(3, 5, 2, 4, 3, 6))


def trial(name: str, **job: Any) -> tuple[Result, list[Task]]:
    """Return what one trial of a sweep came to, and all its tasks."""
    engines: list[Recording] = []

    def make(_name: str, setting: Setting, *_: object) -> Recording:
        engines.append(Recording(setting))
        return engines[-1]

    result = play_setting(setting_of(**job), Plan(trial=name), Interrupt(), make)
    return result, engines[0].tasks


def but_noise(found: list[Task]) -> list[Task]:
    return [msgspec.structs.replace(task, noise_seed=None) for task in found]


def test_outside_a_sweep_the_scenarios_seed_is_that_of_the_noise() -> None:
    assert noise_seed(7, "") == 7


def test_each_trial_of_each_seed_has_a_seed_of_its_own_and_always_the_same() -> None:
    made = {(seed, name): noise_seed(seed, f"{name:04d}") for seed in range(5) for name in range(200)}

    assert len(set(made.values()) | set(range(5))) == 1005
    assert all(0 <= one < 2**63 for one in made.values())
    assert made[3, 17] == noise_seed(3, "0017")


def test_trials_with_equal_fields_differ_by_their_noise_and_by_nothing_that_they_were_given() -> None:
    first, theirs = trial("0000", **EXAMPLE, **SOME)
    second, ours = trial("0001", **EXAMPLE, **SOME)
    again, _ = trial("0001", **EXAMPLE, **SOME)

    assert first.model_sha256 != second.model_sha256 == again.model_sha256
    assert but_noise(theirs) == but_noise(ours)  # cohort, faults, weights and plans
    assert {task.noise_seed for task in theirs} == {first.noise_seed}
    assert {task.noise_seed for task in ours} == {second.noise_seed}
    assert (first.trial, second.trial) == ("0000", "0001")
    assert len({first.noise_seed, second.noise_seed, first.seed}) == 3
    assert first.privacy.epsilon == second.privacy.epsilon
    assert first.initial_scores == second.initial_scores


def test_without_privacy_trials_with_equal_fields_are_equal_bit_for_bit() -> None:
    first, theirs = trial("0000", **SOME)
    second, ours = trial("0001", **SOME)

    assert theirs == ours
    assert first.model_sha256 == second.model_sha256 == played(setting_of(**SOME)).model_sha256
    assert first.noise_seed is second.noise_seed is None


def test_in_a_central_mode_coins_and_noise_are_each_trials_own() -> None:
    first, theirs = trial("0000", **CENTRAL)
    second, ours = trial("0001", **CENTRAL)
    again, repeated = trial("0001", **CENTRAL)

    assert first.model_sha256 != second.model_sha256 == again.model_sha256
    assert but_noise(theirs) != but_noise(ours) == but_noise(repeated)
    assert first.privacy.epsilon == second.privacy.epsilon
    # Who answers, of those drawn by both, is one world's: no device is lost in one trial alone.
    both = {(one.round, one.device) for one in theirs} & {(one.round, one.device) for one in ours}
    assert both


def test_coins_of_trials_are_independent() -> None:
    job = msgspec.convert({"name": "c", "recipe": "tiny", **CENTRAL}, Job)
    one, other = (
        np.bincount(draw(job.cohort, 20_000, cohort_seed(job, 3, name), 1), minlength=20_000)
        for name in ("0000", "0001")
    )
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("private", [EXAMPLE, {"privacy": {"mode": "none"}}])
def test_a_cohort_on_which_privacy_does_not_count_is_common(private: dict[str, Any]) -> None:
    job = msgspec.convert({"name": "c", "recipe": "tiny", **private, **SOME}, Job)
    assert cohort_seed(job, 3, "0000") == cohort_seed(job, 3, "0001") == 3


def test_noise_of_trials_is_independent_in_the_lean_engine() -> None:
    plan = StepPlan(0.5, 2.0, 1.0, 1)
    scenario, population = make_scenario("digits-cnn", 1), digits_population([6])
    model = np.zeros(sum(p.numel() for p in DIGITS.build({}).parameters()), np.float32)
    with LeanEngine(scenario, DIGITS, population, workers=0, choices={"kernel": "explicit:1"}) as engine:
        engine.open()

        def update(seed: int | None) -> np.ndarray:
            return engine.train(batch(model, tasks([0], private=plan, noise_seed=seed))).total.copy()

        own, named, *trials = (update(seed) for seed in (None, scenario.seed, 101, 102))
    np.testing.assert_array_equal(own, named)
    for one, other in itertools.combinations((own, *trials), 2):
        # What is left of the gradient in both is small beside the noise.
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_a_trial_that_goes_on_keeps_its_noise(tmp_path: Path) -> None:
    whole = played(setting_of(**EXAMPLE), tmp_path / "whole", trial="0003")
    folder = tmp_path / "parts"
    for until in (1, 3, 5):
        found = played(setting_of(**EXAMPLE), folder, trial="0003", until=until, resume=until > 1)

    assert found.model_sha256 == whole.model_sha256
    kept = read_result(folder)
    assert (kept.trial, kept.noise_seed) == ("0003", noise_seed(whole.seed, "0003"))


@pytest.mark.parametrize("other", ["", "0004"])
def test_a_trial_cannot_go_on_as_another_one(tmp_path: Path, other: str) -> None:
    played(setting_of(**EXAMPLE), tmp_path, trial="0003", until=1)
    with pytest.raises(ConfigError, match="belongs to another scenario"):
        played(setting_of(**EXAMPLE), tmp_path, trial=other, resume=True)


def sweep(folder: Path, job: dict[str, Any], interrupt: Interrupt | None = None) -> SweepResult:
    """Return a sweep over three times the same learning rate."""
    spec = {
        "fields": {"job.training.learning_rate": [0.05] * 3},
        "first_rounds": 1,
        "keep_one_of": 2,
        "trials": 3,
    }
    named = NamedScenario(tiny_scenario(4, job={"rounds": 3, **job}, sweep=spec), "tiny.toml", folder)
    options = Options(
        folder, make=InProcessEngine.make, settle=lambda named: tiny_setting(named.scenario),
        interrupt=interrupt or Interrupt(),
    )  # fmt: skip
    return run_sweep(named, options)


@pytest.mark.parametrize("job", [EXAMPLE, CENTRAL])
def test_a_sweep_gives_each_trial_its_noise_and_says_which(tmp_path: Path, job: dict[str, Any]) -> None:
    found = sweep(tmp_path / "one", job)

    assert [one.noise_seed for one in found.trials] == [noise_seed(7, f"{n:04d}") for n in range(3)]
    assert len({one.score for one in found.trials}) == 3
    kept = msgspec.json.decode((tmp_path / "one" / "sweep.json").read_bytes(), type=SweepResult)
    assert [one.noise_seed for one in kept.trials] == [one.noise_seed for one in found.trials]
    again = sweep(tmp_path / "two", job)
    assert [one.score for one in again.trials] == [one.score for one in found.trials]


def test_a_sweep_without_privacy_compares_like_with_like(tmp_path: Path) -> None:
    found = sweep(tmp_path, {})
    rounds: dict[int, set[float | None]] = {}
    for one in found.trials:
        rounds.setdefault(one.rounds, set()).add(one.score)
    assert all(len(scores) == 1 for scores in rounds.values())
