"""Whether and when a trainer is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.trainer.exits import PERMANENT, Exit, describe, is_permanent
from hedgerow.edge_agent.trainer.restart import RestartPolicy, Verdict, decide

POLICY = RestartPolicy(first_delay_s=1.0, longest_delay_s=8.0, max_failures=6, healthy_after_s=60.0)


def test_a_first_crash_restarts_at_once_so_that_it_costs_one_round() -> None:
    assert decide(POLICY, -9, 5.0, 0) == Verdict(0.0, 1)


def test_delays_double_up_to_the_longest_and_then_the_job_is_given_up() -> None:
    delays, failures = [], 0
    for _ in range(7):
        verdict = decide(POLICY, Exit.CRASHED, 1.0, failures)
        delays.append(verdict.delay_s)
        failures = verdict.failures

    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0, None]


def test_a_trainer_that_lived_long_starts_a_new_count() -> None:
    assert decide(POLICY, -9, 61.0, 6) == Verdict(0.0, 1)


@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_an_exit_that_would_repeat_itself_is_final(code: int) -> None:
    assert decide(POLICY, code, 1000.0, 0).delay_s is None


def test_a_job_that_is_done_is_not_started_again() -> None:
    assert decide(POLICY, Exit.DONE, 1.0, 3) == Verdict(None, 0)


@pytest.mark.parametrize("code", [Exit.STOPPED, Exit.OUT_OF_MEMORY, Exit.STORAGE, -9, -15, 1, 127])
def test_an_exit_that_may_pass_is_tried_again(code: int) -> None:
    assert not is_permanent(code)
    assert decide(POLICY, code, 1.0, 0).delay_s == 0.0


@given(st.integers(-64, 255), st.floats(0, 1e6), st.integers(0, 100))
def test_every_exit_has_a_verdict_and_a_word(code: int, lived_s: float, failures: int) -> None:
    verdict = decide(POLICY, code, lived_s, failures)

    assert verdict.delay_s is None or 0 <= verdict.delay_s <= POLICY.longest_delay_s
    assert describe(code)


def test_words_of_exits() -> None:
    assert (describe(-9), describe(-15), describe(21), describe(99)) == (
        "killed",
        "signal-15",
        "out-of-memory",
        "exit-99",
    )
