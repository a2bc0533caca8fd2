"""Privacy in a run: the plan a device would make, the noise a server would add, what is charged and what is claimed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import opened, played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.edge_agent.trainer.plan import public_count, schedule
from hedgerow.shared.errors import BudgetError, ConfigError
from hedgerow.shared.privacy.accounting import calibrate_noise, epsilon
from hedgerow.shared.privacy.events import CentralRounds, DpSgdSteps
from hedgerow.simulations.engine.protocol import Batch
from hedgerow.simulations.run.mode_central import CentralPoisson
from hedgerow.simulations.run.modes import make_mechanism
from hedgerow.simulations.run.synchronous import play_round

CENTRAL = {"mode": "central-poisson", "noise_multiplier": 2.0, "delta": 1e-3, "clip_norm_l2": 0.1}
EXAMPLE = {"mode": "example", "epsilon": 4.0, "delta": 1e-3, "clip_norm_l2": 0.5}


def central(rate: float = 0.5, devices: int = 8, **changes: Any) -> Any:
    job = {
        "privacy": {**CENTRAL, **changes.pop("privacy", {})},
        "cohort": {"rule": "poisson", "rate": rate},
        **changes.pop("job", {}),
    }
    return tiny_setting(tiny_scenario(devices, job=job, **changes), counts=tuple(range(2, devices + 2)))


# Mode central-poisson


def test_central_noise_has_the_planned_spread_and_no_mean() -> None:
    job = central().scenario.job
    mechanism = CentralPoisson(job, 8, seed=3)
    total = np.full(200_000, 0.25)
    noised = mechanism.release(1, total, 5.0, b"")
    noise = noised.total - 0.25
    assert abs(noise.mean()) < 4 * 0.2 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(2.0 * 0.1, rel=0.01)


def test_central_noise_is_the_same_for_the_same_seed_and_round_only() -> None:
    job = central().scenario.job
    first = CentralPoisson(job, 8, seed=3).release(1, np.zeros(50), 5.0, b"").total
    assert np.array_equal(first, CentralPoisson(job, 8, seed=3).release(1, np.zeros(50), 1.0, b"").total)
    for seed, round in ((3, 2), (4, 1)):
        other = CentralPoisson(job, 8, seed=seed).release(round, np.zeros(50), 5.0, b"").total
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.6


def test_the_noisy_sum_is_divided_by_the_expected_cohort_whoever_came() -> None:
    setting = central()
    for seen in (0.0, 1.0, 7.0):
        assert make_mechanism(setting).release(1, np.zeros(4), seen, b"").weight == 0.5 * 8


def test_a_central_round_is_the_clipped_sum_and_noise_over_the_constant() -> None:
    setting = central()
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    state = run.begin()
    play_round(run, state)
    answer = engine.train(engine.batches[0])
    noisy = CentralPoisson(setting.scenario.job, 8, setting.scenario.seed).release(1, answer.total, 1.0, b"")
    assert np.allclose(state.model, setting.model + noisy.total / 4.0, atol=1e-7)
    assert all(task.clip_norm_l2 == 0.1 and task.weight == 1.0 for task in engine.batches[0].tasks)


def test_weights_are_equal_though_the_job_weighs_by_samples() -> None:
    setting = central(job={"strategy": {"weighting": "samples"}})
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    play_round(run, run.begin())
    assert {task.weight for task in engine.batches[0].tasks} == {1.0}


def test_a_round_of_nobody_is_released_with_noise_all_the_same() -> None:
    setting = central(faults={"dropout": 1.0}, job={"cohort": {"rule": "poisson", "rate": 0.5, "quorum": 3}})
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    assert record.counted == 0
    assert "0 updates, quorum 3" in record.events  # an alert; it decides nothing
    assert not np.array_equal(state.model, setting.model)


def test_what_is_not_finite_adds_zero_and_the_round_is_noise_over_the_constant() -> None:
    setting = central(faults={"byzantine": {"kind": "nan", "share": 1.0}})
    run = opened(setting)
    state = run.begin()
    record = play_round(run, state)
    noise = CentralPoisson(setting.scenario.job, 8, setting.scenario.seed).release(1, np.zeros(4), 0.0, b"")
    assert record.rejected == {"non-finite": record.drawn}
    assert np.allclose(state.model, setting.model + noise.total / 4.0, atol=1e-7)


def test_an_update_that_was_blown_up_is_held_to_the_clip_norm() -> None:
    setting = central(rate=1.0, faults={"byzantine": {"kind": "scale", "share": 1.0, "scale": 1e6}})
    engine = InProcessEngine(setting)
    run = opened(setting, engine)
    play_round(run, run.begin())
    for task in engine.batches[0].tasks:
        total = engine.train(Batch(engine.batches[0].models, [task])).total
        assert np.linalg.norm(total) <= 0.1


def test_central_epsilon_is_that_of_the_accounting_by_round_and_at_the_end() -> None:
    result = played(central())
    for record in result.rounds:
        spent = epsilon([CentralRounds(0.5, 2.0, record.round)], 1e-3)
        assert spent <= record.epsilon <= spent * 1.001  # type: ignore[operator]
    events = [CentralRounds(0.5, 2.0, 3)]
    assert result.privacy.epsilon == pytest.approx(epsilon(events, 1e-3))
    assert result.privacy.epsilon_rdp == pytest.approx(epsilon(events, 1e-3, "rdp"))
    assert result.privacy.epsilon_replace == pytest.approx(epsilon(events, 1e-3, "pld", "replace"))
    assert result.privacy.claim == "simulated, no claim"
    assert result.privacy.report["epsilon"] is None  # the fleet's report claims nothing either
    assert result.privacy.report["figures"]["rounds"] == 3


def test_central_noise_is_calibrated_to_a_target() -> None:
    setting = central(privacy={"noise_multiplier": None, "epsilon": 3.0})
    result = played(setting)
    assert result.privacy.noise_multiplier == calibrate_noise(3.0, 1e-3, 0.5, 3)
    assert result.privacy.epsilon == pytest.approx(3.0, rel=0.01)
    assert result.privacy.epsilon <= 3.0  # type: ignore[operator]


def test_a_plan_that_protects_nobody_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"protects nobody"):
        opened(central(privacy={"noise_multiplier": 0.3}, job={"rounds": 30}))


def test_coins_are_thrown_for_absent_devices_too() -> None:
    setting = central(rate=0.5, devices=40, availability={"kind": "random", "rate": 0.3})
    run = opened(setting)
    state = run.begin()
    drawn = [play_round(run, state).drawn for _ in range(3)]
    assert all(8 < count < 32 for count in drawn)
    assert all(record.counted < record.drawn for record in state.records)


# Mode example


def test_each_device_is_told_the_plan_that_it_would_make_itself() -> None:
    setting = tiny_setting(tiny_scenario(3, job={"privacy": EXAMPLE}), counts=(4, 9, 33))
    mechanism = make_mechanism(setting)
    for device, n in enumerate((4, 9, 33)):
        drawn = schedule(setting.scenario.job.training, n)
        terms = mechanism.terms(device)
        assert terms is not None and terms.private is not None
        plan = terms.private
        assert (plan.sampling_rate, plan.steps) == (drawn.sampling_rate, drawn.steps_per_round)
        assert plan.noise_multiplier == calibrate_noise(4.0, 1e-3, plan.sampling_rate, 3 * plan.steps)
        assert plan.clip_norm_l2 == 0.5


def test_plans_follow_from_the_public_count_and_are_made_once() -> None:
    assert public_count(45) == public_count(63) == 45
    job = {"privacy": {**EXAMPLE, "delta": 1e-5}}
    setting = tiny_setting(tiny_scenario(2, job=job), counts=(45, 63))
    mechanism = make_mechanism(setting)
    plans = [mechanism.terms(device) for device in (0, 1)]
    assert plans[0] == plans[1]
    assert len(mechanism.charges(1, [0, 1])) == 1


def test_a_device_whose_delta_is_too_large_declines() -> None:
    setting = tiny_setting(tiny_scenario(2, job={"privacy": EXAMPLE}), counts=(50, 101))
    run = opened(setting)
    record = play_round(run, run.begin())
    assert (record.drawn, record.counted) == (2, 1)
    assert "1 declined" in record.events


def test_example_epsilon_is_the_largest_over_devices_of_what_each_really_did() -> None:
    job = {"privacy": EXAMPLE, "rounds": 4, "cohort": {"rule": "fixed", "size": 2}}
    setting = tiny_setting(tiny_scenario(4, job=job), counts=(4, 4, 9, 9))
    run = opened(setting)
    state = run.begin()
    records = [play_round(run, state) for _ in range(4)]
    spent = []
    for device, times in enumerate(state.totals.rounds):
        terms = run.mechanism.terms(device)
        assert terms is not None and terms.private is not None
        plan = terms.private
        if times:
            steps = DpSgdSteps(plan.sampling_rate, plan.noise_multiplier, int(times) * plan.steps)
            spent.append(epsilon([steps], 1e-3))
    assert records[-1].epsilon == pytest.approx(max(spent), rel=1e-3)
    grown = [record.epsilon for record in records]
    assert grown == sorted(grown)  # type: ignore[type-var]
    summary = run.mechanism.summary(run.spending)
    assert max(spent) <= summary.epsilon <= max(spent) + 1e-3  # type: ignore[operator]
    assert summary.claim == "simulated, no claim"
    assert summary.epsilon <= 4.0  # type: ignore[operator]


def test_devices_that_fail_after_they_drew_their_noise_are_charged() -> None:
    setting = tiny_setting(tiny_scenario(2, job={"privacy": EXAMPLE}, faults={"dropout": 1.0}), counts=(4, 9))
    run = opened(setting)
    record = play_round(run, run.begin())
    assert record.counted == 0
    assert record.epsilon > 0  # type: ignore[operator]


def test_example_needs_epsilon_and_delta() -> None:
    with pytest.raises(ConfigError, match="epsilon and delta"):
        opened(tiny_setting(tiny_scenario(1, job={"privacy": {"mode": "example"}}), counts=(3,)))


# Mode none, and those not built


def test_mode_none_claims_nothing_and_says_so() -> None:
    privacy = played(tiny_setting()).privacy
    assert (privacy.mode, privacy.epsilon, privacy.claim) == ("none", None, "none")
    assert "ε is infinite" in privacy.notes[0]


def test_a_mode_that_is_not_built_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"job\.privacy\.mode: 'local' is not built"):
        opened(tiny_setting(tiny_scenario(4, job={"privacy": {"mode": "local"}})))
