"""Planted faults: each kind does what its name says, where it says, and to no other channel or row."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hedgerow.simulations.bench.selection.faults import LEVEL, OTHER, Fault, draw, plant

ROWS, SPREAD = 300, np.array([1.0, 2.0, 0.5])


def normal(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    return 10 + SPREAD * np.random.default_rng(seed).standard_normal((rows, 3))


def fault(kind: str, size: float = 4.0, onset: int = 0, recovery: int = 0) -> Fault:
    return Fault(kind, (1,), (size,), 100, 200, onset, recovery, 3)


@pytest.mark.parametrize("kind", LEVEL + OTHER)
def test_a_fault_touches_its_rows_and_channels_alone(kind: str) -> None:
    rest = normal()

    made = plant(fault(kind), rest, normal(1), SPREAD)

    changed = made != rest
    assert changed[:, 1].any()
    assert not changed[:, [0, 2]].any()
    assert not changed[:100].any() and not changed[200:].any()
    assert fault(kind).labels(ROWS).sum() == 100


def test_a_step_is_its_size_in_the_channel_s_own_spread() -> None:
    rest = normal()

    moved = plant(fault("step", -3.0), rest, normal(1), SPREAD) - rest

    assert moved[100:200, 1] == pytest.approx(-6.0)


def test_a_ramp_grows_to_its_end_and_recovery_takes_its_rows() -> None:
    rest = normal()

    moved = (plant(fault("ramp", 4.0, onset=100, recovery=20), rest, normal(1), SPREAD) - rest)[:, 1]

    assert moved[100] == pytest.approx(8 / 100)
    assert moved[199] == pytest.approx(8)
    assert (np.diff(moved[100:200]) > 0).all()
    assert (np.diff(moved[199:221]) < 0).all()
    assert moved[220] == 0


def test_noise_grows_by_its_size_about_the_same_level() -> None:
    rest = normal()

    made = plant(fault("noise", -3.0), rest, normal(1), SPREAD)[100:200, 1]

    assert made.std() / rest[100:200, 1].std() == pytest.approx(4, rel=0.1)
    assert made.mean() == pytest.approx(rest[100:200, 1].mean(), abs=0.5)


def test_a_decoupled_channel_reads_normal_values_of_another_time() -> None:
    fit = normal(1)

    made = plant(fault("decoupled"), normal(), fit, SPREAD)[100:200, 1]

    assert np.isin(made, fit[:, 1]).all()


def test_a_stuck_channel_holds_its_first_reading() -> None:
    rest = normal()

    assert (plant(fault("stuck"), rest, normal(1), SPREAD)[100:200, 1] == rest[100, 1]).all()


def test_spikes_hit_about_a_tenth_of_the_rows_both_ways() -> None:
    rest = np.tile(normal(), (1, 1))

    moved = (plant(fault("spikes"), rest, normal(1), SPREAD) - rest)[100:200, 1]

    assert 3 <= (moved != 0).sum() <= 20
    assert np.abs(moved[moved != 0]) == pytest.approx(8.0)
    assert moved.min() < 0 < moved.max()


def test_an_oscillation_reaches_its_size_and_comes_back() -> None:
    rest = normal()

    moved = (plant(fault("oscillation"), rest, normal(1), SPREAD) - rest)[100:200, 1]

    assert 7 < moved.max() <= 8 and -8 <= moved.min() < -7


def test_draws_cover_every_kind_and_stay_inside_their_rows_and_channels() -> None:
    among = (0, 1, 2, 3, 6, 7)
    drawn = [draw(np.random.default_rng(n), 150, among) for n in range(3000)]

    kinds = Counter(one.kind for one in drawn)
    level = kinds["step"] + kinds["ramp"]
    assert set(kinds) == set(LEVEL + OTHER)
    assert level / 3000 == pytest.approx(0.75, abs=0.03)
    assert kinds["ramp"] / level == pytest.approx(0.25, abs=0.03)
    for one in drawn:
        assert one.end - one.start == 50
        assert one.start >= 15 and one.end <= 135
        assert set(one.channels) <= set(among)
        assert len(set(one.channels)) == len(one.sizes) == len(one.channels)
        assert 2 <= abs(one.sizes[0]) <= 16
        assert all(0.5 <= abs(size / one.sizes[0]) <= 1 for size in one.sizes)
    assert {len(one.channels) for one in drawn if one.kind in LEVEL} == {1, 2, 3, 4, 5}
    assert draw(np.random.default_rng(4), 150, among) == draw(np.random.default_rng(4), 150, among)
