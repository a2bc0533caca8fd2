"""What a central job may spend: composition over devices, calibration beside earlier jobs, refusals. No disk."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.ledger.budget import Account, Opening, open_account, spent_on
from hedgerow.shared.errors import BudgetError, ConfigError
from hedgerow.shared.job import CohortSpec, Job, PrivacySpec
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.central import CentralPlan
from hedgerow.shared.privacy.events import CentralRounds

DEVICES = tuple(f"d{n:02}" for n in range(20))


def job(rounds: int = 10, rate: float = 0.2, **privacy: Any) -> Job:
    asked = {"delta": 1e-3} | (privacy or {"epsilon": 4.0})
    return Job(
        name="t",
        recipe="r",
        rounds=rounds,
        privacy=PrivacySpec(mode="central-poisson", **asked),
        cohort=CohortSpec(rule="poisson", rate=rate),
    )


def opening(asked: Job, devices: tuple[str, ...] = DEVICES, job_id: str = "new") -> Opening:
    return Opening(job_id, asked, devices, unprotected=False)


def account(
    job_id: str = "old", devices: tuple[str, ...] = DEVICES, z: float = 2.0, rounds: int = 10, **more: Any
) -> Account:
    plan = CentralPlan(0.2, len(devices), z, 1.0, rounds, 1e-3, 1.0)
    return Account(job_id, devices, plan, (), earlier_unprotected=False, **more)


def test_the_first_job_gets_the_noise_that_its_epsilon_needs() -> None:
    opened = open_account(opening(job()), [], 10.0)

    assert opened.plan.population == 20
    assert 3.9 < opened.plan.epsilon <= 4.0
    assert opened.earlier == ()
    assert epsilon(opened.committed(), 1e-3) == pytest.approx(opened.plan.epsilon)


def test_a_population_is_counted_once_however_it_is_named() -> None:
    opened = open_account(opening(job(), ("b", "a", "b")), [], 10.0)

    assert opened.devices == ("a", "b")
    assert opened.plan.population == 2


def test_a_second_job_over_the_same_devices_needs_more_noise_and_both_stay_within_its_epsilon() -> None:
    first = account()

    alone, later = (open_account(opening(job()), before, 10.0) for before in ([], [first]))

    assert later.earlier == first.committed()
    assert later.plan.noise_multiplier > alone.plan.noise_multiplier
    assert epsilon([*first.committed(), *later.plan.events()], 1e-3) <= 4.0


@pytest.mark.parametrize(
    ("devices", "shared"), [((*DEVICES[10:], "x", "y"), True), (("x", "y"), False), (("d19", "x"), True)]
)
def test_jobs_compose_where_they_share_a_device(devices: tuple[str, ...], shared: bool) -> None:
    spent = spent_on([account()], frozenset(devices))

    assert bool(spent) == shared


@given(
    st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1), max_size=5),
    st.frozensets(st.sampled_from("abcdef")),
)
def test_what_is_counted_is_at_least_what_any_device_was_charged(
    populations: list[frozenset[str]], asked: frozenset[str]
) -> None:
    accounts = [account(f"j{n}", tuple(sorted(p)), rounds=n + 1) for n, p in enumerate(populations)]

    counted = sum(event.rounds for event in spent_on(accounts, asked) if isinstance(event, CentralRounds))

    for device in asked:
        assert counted >= sum(a.plan.rounds for a in accounts if device in a.devices)
    if not asked:
        assert counted == 0


def test_an_unfinished_job_counts_with_all_its_rounds_and_a_finished_one_with_those_it_began() -> None:
    assert account(begun=3).committed() == (CentralRounds(0.2, 2.0, 10),)
    assert account(begun=3, closed=True).committed() == (CentralRounds(0.2, 2.0, 3),)
    assert account(begun=0, closed=True).committed() == ()


def test_a_job_whose_epsilon_is_spent_is_refused() -> None:
    with pytest.raises(BudgetError, match="is spent"):
        open_account(opening(job(epsilon=1.0)), [account(z=1.0)], 10.0)


def test_a_job_over_the_devices_budget_is_refused_with_what_would_come_and_what_to_do() -> None:
    first = account(z=0.8)
    asked = job(noise_multiplier=0.8)

    open_account(opening(asked), [first], 100.0)
    with pytest.raises(BudgetError) as refused:
        open_account(opening(asked), [first], 6.0)

    said = str(refused.value)
    total = epsilon([*first.committed(), CentralRounds(0.2, 0.8, 10)], 1e-3)
    assert f"ε = {total:.4g}" in said
    assert f"{epsilon(first.committed(), 1e-3):.4g} of it from earlier jobs" in said
    assert "budget of 6;" in said
    assert "device_budget_epsilon" in said


def test_an_epsilon_above_the_devices_budget_is_refused_even_at_first() -> None:
    with pytest.raises(BudgetError, match="over their budget of 3"):
        open_account(opening(job(epsilon=8.0)), [], 3.0)


def test_a_budget_just_reached_is_not_exceeded() -> None:
    plan = open_account(opening(job()), [], 10.0).plan

    assert open_account(opening(job()), [], plan.epsilon).plan == plan


def test_devices_that_share_nothing_pay_for_themselves_alone() -> None:
    first = account(z=1.0)

    other = open_account(opening(job(epsilon=1.0), ("x", "y", "z")), [first], 2.0)

    assert other.earlier == ()


def test_the_curve_of_an_account_counts_earlier_jobs_in_and_ends_at_the_plan() -> None:
    opened = open_account(opening(job(rounds=4)), [account()], 10.0)

    curve = [opened.epsilon_after(n) for n in range(5)]

    assert curve[0] == pytest.approx(epsilon(opened.earlier, 1e-3), rel=1e-3)
    assert curve == sorted(curve)
    assert len(set(curve)) == 5
    assert curve[4] == opened.plan.epsilon


def test_a_job_of_another_mode_has_no_account() -> None:
    with pytest.raises(ConfigError, match="central-poisson"):
        open_account(opening(Job(name="t", recipe="r", privacy=PrivacySpec("none"))), [], 10.0)


def test_an_account_tells_the_report_what_it_knows() -> None:
    opened = open_account(Opening("j", job(), DEVICES, unprotected=True), [account()], 10.0)

    record = opened.record("ab")
    assert (record.plan, record.earlier, record.earlier_unprotected) == (opened.plan, opened.earlier, True)
    assert (record.simulated, record.ledger_head) == (False, "ab")
