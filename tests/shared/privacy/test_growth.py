"""ε over the rounds of a job against the accountant, and what a server may rely on: bounded, rising, always the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.privacy.accounting import calibrate_noise, epsilon
from hedgerow.shared.privacy.events import DpSgdSteps, GaussianRelease, PrivacyEvent
from hedgerow.shared.privacy.growth import MAX_POINTS, Growth, RoundCharge, points

DELTA = 1e-5


def charge_for(
    target: float, rate: float, steps: int, rounds: int, earlier: tuple[PrivacyEvent, ...] = ()
) -> RoundCharge:
    """Return what a device charges that calibrated its noise for all rounds, as devices do."""
    noise = calibrate_noise(target, DELTA, rate, steps * rounds, earlier)
    return RoundCharge(DpSgdSteps(rate, noise, steps), rounds, target, DELTA, earlier)


def spent(charge: RoundCharge, rounds: int, accountant: str = "pld") -> float:
    """The oracle: everything composed by the accountant, on its finer grid."""
    own = charge.per_round
    events = (*charge.earlier, DpSgdSteps(own.sampling_rate, own.noise_multiplier, own.steps * rounds))
    return epsilon(events, DELTA, "rdp" if accountant == "rdp" else "pld")


@pytest.mark.parametrize(
    "earlier", [(), (DpSgdSteps(0.05, 1.1, 40),), (DpSgdSteps(0.05, 1.4, 40), DpSgdSteps(0.2, 3.0, 10))]
)
def test_each_round_is_bounded_closely_from_above_and_the_last_is_the_budget(
    earlier: tuple[PrivacyEvent, ...],
) -> None:
    charge = charge_for(8.0, 0.1, 10, 8, earlier)
    growth = Growth(charge)

    curve = [growth.after(k) for k in range(1, 9)]

    for rounds, value in enumerate(curve, 1):
        exact = spent(charge, rounds)
        assert exact <= value <= 1.01 * exact
        assert value < spent(charge, rounds, "rdp")
    assert 7.98 <= curve[-1] <= 8.0
    assert curve[0] < 0.8 * curve[-1]
    assert all(a < b for a, b in itertools.pairwise(curve))


def test_many_rounds_cost_few_evaluations_and_what_lies_between_takes_the_next() -> None:
    charge = charge_for(1.0, 0.01, 3, 1000)
    growth = Growth(charge)
    at = points(1000)

    assert len(at) <= MAX_POINTS
    assert at[-1] == 1000
    for rounds in (1, 2, 3, 40, 41, 500, 999, 1000):
        above = next(point for point in at if point >= rounds)
        assert growth.after(rounds) == growth.after(above)
        assert spent(charge, rounds) <= growth.after(rounds) <= 1.0
    assert growth.after(500) < 0.8


@given(st.integers(1, 10_000))
def test_points_rise_to_the_last_round(rounds: int) -> None:
    found = points(rounds)
    assert len(found) <= MAX_POINTS
    assert list(found) == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] == rounds


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_is_said_of_a_round_does_not_depend_on_what_was_asked_before(data: st.DataObject) -> None:
    """A process that was killed, and one that was not, say the same."""
    charge = RoundCharge(DpSgdSteps(1.0, 20.0, 2), 30, 5.0, DELTA, (DpSgdSteps(1.0, 4.0, 3),))
    warm = Growth(charge)
    order = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))

    for rounds in order:
        assert warm.after(rounds) == Growth(charge).after(rounds)


def test_a_round_that_adds_almost_nothing_never_makes_it_fall() -> None:
    """The rounding of the accountant is about as large as what these rounds add."""
    charge = RoundCharge(DpSgdSteps(1e-4, 500.0, 1), 16, 9.0, DELTA, (DpSgdSteps(0.5, 1.5, 20),))
    growth = Growth(charge)

    curve = [growth.after(k) for k in range(1, 17)]

    assert curve == sorted(curve)
    assert curve[0] >= epsilon(charge.earlier, DELTA)


def test_nothing_above_what_was_asked_for_is_ever_said() -> None:
    charge = RoundCharge(DpSgdSteps(0.5, 0.6, 10), 4, 1.0, DELTA)

    assert Growth(charge).after(4) == 1.0


@pytest.mark.parametrize("rounds", [0, -1, 9])
def test_rounds_that_were_not_planned_have_no_epsilon(rounds: int) -> None:
    with pytest.raises(ValueError, match=f"{rounds} rounds of a job that planned 8"):
        Growth(RoundCharge(DpSgdSteps(0.1, 1.0, 1), 8, 8.0, DELTA)).after(rounds)


def test_what_cannot_be_composed_is_refused() -> None:
    charge = RoundCharge(DpSgdSteps(0.1, 1.0, 1), 8, 8.0, DELTA, (GaussianRelease(1.0),))

    with pytest.raises(UnsupportedError, match="no accounting for GaussianRelease"):
        Growth(charge).after(1)
