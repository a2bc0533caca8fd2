from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.link.tls import ClockError
from hedgerow.shared.errors import AuthError, TransportError

DOWN = TransportError("down")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_up_to_the_longest() -> None:
    state = Reconnect(first_s=1, longest_s=5, jitter=lambda: 1.0, clock=Clock())

    assert [state.failed(DOWN) for _ in range(5)] == [1, 2, 4, 5, 5]


def test_success_starts_over_and_tells_how_long_it_was_down() -> None:
    clock = Clock()
    state = Reconnect(first_s=1, jitter=lambda: 1.0, clock=clock)
    assert state.succeeded() is None
    state.failed(DOWN)
    state.failed(DOWN)
    clock.now += 7

    assert state.succeeded() == 7
    assert state.succeeded() is None
    assert state.failed(DOWN) == 1


def test_refusal_waits_long_at_once_but_a_wrong_clock_does_not() -> None:
    state = Reconnect(first_s=1, longest_s=5, refused_s=60, jitter=lambda: 1.0, clock=Clock())

    assert state.failed(AuthError("revoked")) == 60
    assert state.failed(ClockError("1970")) == 2


@given(st.integers(0, 3000), st.floats(0, 1, exclude_max=True))
def test_waits_stay_within_half_and_the_whole_of_the_ceiling(failures: int, jitter: float) -> None:
    state = Reconnect(first_s=0.5, longest_s=30, jitter=lambda: jitter, clock=Clock())
    state.failures = failures
    ceiling = min(30.0, 0.5 * 2.0 ** min(failures, 40))

    assert ceiling / 2 <= state.failed(DOWN) <= ceiling
