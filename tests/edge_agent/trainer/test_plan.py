"""What private training will do: schedule, δ, noise for all rounds, and that the example count stays coarse."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.trainer import plan
from hedgerow.edge_agent.trainer.codes import Code, DeclinedError
from hedgerow.shared.errors import BudgetError
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction
from hedgerow.shared.privacy.accounting import calibrate_noise, epsilon
from hedgerow.shared.privacy.entries import SampleRange, Unprotected
from hedgerow.shared.privacy.events import DpSgdSteps
from hedgerow.shared.privacy.state import LedgerState

SAMPLES = SampleRange("tiny", 0, 100)


def instruction(**changes: object) -> TrainInstruction:
    base = TrainInstruction(
        job_id="job",
        round=1,
        exchange=0,
        recipe="tiny",
        recipe_hash="h",
        parameters={"b": 1, "a": 2},
        privacy=PrivacySpec("example", 2.0, 1e-4),
        training=TrainingSpec(batch_size=32, local_epochs=2),
        packing="float32",
        rounds=5,
        n_parameters=4,
        model_sha256="m",
        deadline_s=60,
    )
    return msgspec.structs.replace(base, **changes)


@given(st.integers(1, 10_000_000))
def test_the_public_count_is_just_below_the_real_one_and_one_of_few(n: int) -> None:
    count = plan.public_count(n)

    assert count <= n < 1.5 * count + 1
    power = 2 * math.log2(count + 0.999)
    assert math.floor(2 ** (math.floor(power) / 2)) == count


def test_the_public_count_takes_few_values() -> None:
    assert len({plan.public_count(n) for n in range(1, 100_001)}) <= 2 * math.log2(100_000) + 1


@given(st.integers(1, 1_000_000), st.integers(1, 1_000_000))
def test_the_public_count_grows_with_the_real_one(first: int, second: int) -> None:
    low, high = sorted((first, second))

    assert plan.public_count(low) <= plan.public_count(high)


def test_no_examples_have_no_public_count() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan.public_count(0)


def test_schedule_draws_a_batch_per_step_and_an_epoch_per_epoch() -> None:
    found = plan.schedule(TrainingSpec(batch_size=32, local_epochs=3), 512)

    assert found == plan.Schedule(32 / 512, 16 * 3)


def test_schedule_is_the_same_for_counts_that_round_alike() -> None:
    spec = TrainingSpec(batch_size=32)

    assert plan.schedule(spec, 512) == plan.schedule(spec, 700)
    assert plan.schedule(spec, 512) != plan.schedule(spec, 725)


def test_fewer_examples_than_a_batch_are_all_drawn() -> None:
    assert plan.schedule(TrainingSpec(batch_size=64), 20) == plan.Schedule(1.0, 1)


def test_a_nominal_number_makes_the_schedule_independent_of_the_device() -> None:
    spec = TrainingSpec(batch_size=32, nominal_samples=320)

    assert {plan.schedule(spec, n) for n in (1, 31, 320, 100_000)} == {plan.Schedule(0.1, 10)}


@pytest.mark.parametrize(("n", "delta", "fits"), [(1000, 1e-4, True), (1001, 1e-4, False), (1, 0.09, True)])
def test_delta_must_not_exceed_a_tenth_of_one_over_n(n: int, delta: float, fits: bool) -> None:
    if fits:
        plan.check_delta(delta, n)
        return

    with pytest.raises(DeclinedError) as caught:
        plan.check_delta(delta, n)
    assert caught.value.code is Code.DELTA


def test_the_plan_keeps_all_rounds_within_epsilon() -> None:
    opened = plan.open_private_job(instruction(), SAMPLES, 700, LedgerState())

    steps = opened.steps_per_round * opened.rounds
    assert steps == 16 * 2 * 5
    spent = epsilon([DpSgdSteps(opened.sampling_rate, opened.noise_multiplier, steps)], opened.delta)
    assert 0.97 * 2 < spent <= 2
    assert (opened.n, opened.samples, opened.clip_norm_l2) == (700, SAMPLES, 1.0)
    assert plan.steps_of(opened).steps == 32


def state_with(first: TrainInstruction) -> LedgerState:
    state = LedgerState()
    state.apply(plan.open_private_job(first, SAMPLES, 700, state), b"h")
    return state


def test_a_second_job_must_ask_for_more_than_the_first_spent() -> None:
    state = state_with(instruction())

    with pytest.raises(BudgetError):
        plan.open_private_job(instruction(job_id="second"), SAMPLES, 700, state)
    wider = instruction(job_id="second", privacy=PrivacySpec("example", 4.0, 1e-4))
    opened = plan.open_private_job(wider, SAMPLES, 700, state)

    own = DpSgdSteps(opened.sampling_rate, opened.noise_multiplier, 160)
    assert epsilon([*state.committed_on(SAMPLES), own], 1e-4) <= 4
    assert opened.noise_multiplier > 1.05 * calibrate_noise(4.0, 1e-4, 0.0625, 160)


def test_a_job_on_fresh_samples_has_a_fresh_budget() -> None:
    state = state_with(instruction())

    opened = plan.open_private_job(instruction(job_id="second"), SampleRange("tiny", 100, 900), 700, state)

    assert opened.noise_multiplier == pytest.approx(state.jobs["job"].opened.noise_multiplier)


def test_a_job_after_one_without_privacy_is_marked() -> None:
    state = LedgerState()
    state.apply(Unprotected("open", SAMPLES), b"h")

    assert plan.open_private_job(instruction(), SAMPLES, 700, state).earlier_unprotected
    assert not plan.open_private_job(
        instruction(), SampleRange("tiny", 100, 200), 700, state
    ).earlier_unprotected


@pytest.mark.parametrize("privacy", [PrivacySpec("example", None, 1e-4), PrivacySpec("example", 8.0, None)])
def test_a_job_without_a_budget_is_declined(privacy: PrivacySpec) -> None:
    with pytest.raises(DeclinedError) as caught:
        plan.open_private_job(instruction(privacy=privacy), SAMPLES, 700, LedgerState())

    assert caught.value.code is Code.UNSUPPORTED


def test_the_job_digest_holds_for_all_rounds_and_any_order_of_keys() -> None:
    first = plan.job_digest(instruction())

    assert first == plan.job_digest(instruction(round=4, model_sha256="other", parameters={"a": 2, "b": 1}))
    for changed in (
        {"parameters": {"a": 3}},
        {"privacy": PrivacySpec("example", 9.0, 1e-4)},
        {"training": TrainingSpec(batch_size=31)},
        {"rounds": 6},
        {"recipe_hash": "x"},
        {"job_id": "y"},
    ):
        assert plan.job_digest(instruction(**changed)) != first


def test_the_exchange_digest_changes_with_what_would_be_trained() -> None:
    first = plan.exchange_digest(instruction())

    assert first == plan.exchange_digest(instruction(deadline_s=5))
    for changed in ({"round": 2}, {"exchange": 1}, {"model_sha256": "x"}, {"packing": "int8"}, {"rounds": 9}):
        assert plan.exchange_digest(instruction(**changed)) != first
