from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.pki.attempts import MAX_SOURCES, Attempts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_source_may_fail_a_few_times_and_then_waits() -> None:
    clock = Clock()
    attempts = Attempts(burst=3, refill_s=10.0, clock=clock)
    for _ in range(3):
        assert attempts.wait_s("a") == 0
        attempts.failed("a")

    assert attempts.wait_s("a") == pytest.approx(10.0)
    clock.now = 4.0
    assert attempts.wait_s("a") == pytest.approx(6.0)
    clock.now = 10.0
    assert attempts.wait_s("a") == 0
    attempts.failed("a")
    assert attempts.wait_s("a") == pytest.approx(10.0)


def test_sources_do_not_hinder_each_other() -> None:
    attempts = Attempts(burst=1, refill_s=10.0, clock=Clock())
    attempts.failed("a")

    assert attempts.wait_s("a") == pytest.approx(10.0)
    assert attempts.wait_s("b") == 0


def test_memory_is_bounded_and_the_latest_offenders_are_kept() -> None:
    attempts = Attempts(burst=1, refill_s=10.0, clock=Clock())
    for n in range(MAX_SOURCES + 10):
        attempts.failed(str(n))

    assert attempts.wait_s("9") == 0
    assert attempts.wait_s(str(MAX_SOURCES + 9)) == 10.0


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_never_more_than_burst_plus_refill_failures_pass(pauses: list[float]) -> None:
    clock = Clock()
    attempts = Attempts(burst=5, refill_s=2.0, clock=clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        if attempts.wait_s("a") == 0:
            attempts.failed("a")
            passed += 1

    assert passed <= 5 + clock.now / 2.0 + 1e-6
