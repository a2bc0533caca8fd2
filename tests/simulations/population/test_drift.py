"""Inputs that differ between devices and move over rounds: by how much, for whom, from when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hedgerow.simulations.population.drift import MAX_STEPS, differ, drifting, phases_of, spread_of
from hedgerow.simulations.population.values import FlatData, Phase, Population
from hedgerow.simulations.scenario.spec import DriftSpec


def data(devices: int = 40, each: int = 25, inputs: int = 6) -> FlatData:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((devices * each, inputs)) * np.arange(1, inputs + 1)).astype(np.float32)
    return FlatData(x, rng.integers(5, size=len(x)), np.arange(devices + 1) * each)


def phases(whole: FlatData, seed: int = 1, **spec: Any) -> tuple[Phase, ...]:
    return phases_of(whole, DriftSpec(**spec), seed, spread_of(whole), 5)


def at(found: tuple[Phase, ...], round: int) -> FlatData:
    nobody = np.zeros(1, np.int64)
    held: Any = None
    return Population(found, held, None, nobody, nobody, ("all",)).at(round)


def test_without_drift_data_are_the_very_same() -> None:
    whole = data()

    assert differ(whole, DriftSpec(), 0, spread_of(whole)) is whole
    assert phases(whole) == (Phase(1, whole),)


def test_each_device_has_one_gain_and_one_offset_per_element() -> None:
    whole = data()
    made = differ(whole, DriftSpec(feature_scale=0.3, feature_shift=0.5), 3, spread_of(whole))
    before, after = whole.of(7)[0].astype(np.float64), made.of(7)[0].astype(np.float64)

    for element in range(6):
        gain, offset = np.polyfit(before[:, element], after[:, element], 1)
        np.testing.assert_allclose(after[:, element], gain * before[:, element] + offset, atol=1e-5)
    assert made.y is whole.y
    assert not np.array_equal(made.x, whole.x)


def test_gains_and_offsets_have_the_asked_spread() -> None:
    whole = data(devices=400, each=5)
    scaled = differ(whole, DriftSpec(feature_scale=0.3), 3, spread_of(whole))
    shifted = differ(whole, DriftSpec(feature_shift=0.5), 3, spread_of(whole))
    gains = (scaled.x / whole.x)[::5]
    offsets = ((shifted.x - whole.x) / spread_of(whole))[::5]

    assert gains.mean() == pytest.approx(1.0, abs=0.03)
    assert gains.std() == pytest.approx(0.3, rel=0.08)
    assert offsets.std() == pytest.approx(0.5, rel=0.08)
    assert np.ptp(offsets, axis=0).min() > 1.0, "devices differ"


def test_train_and_test_of_a_device_are_seen_through_the_same_sensor() -> None:
    whole = data()
    spec = DriftSpec(feature_scale=0.3, feature_shift=0.5)
    part = FlatData(whole.x[::5].copy(), None, np.arange(41) * 5)

    together = differ(whole, spec, 3, spread_of(whole))
    apart = differ(part, spec, 3, spread_of(whole))

    assert np.array_equal(together.x[::5], apart.x)


def test_only_the_chosen_devices_move_all_the_same_way_from_the_round_on() -> None:
    whole = data()
    found = phases(whole, from_round=6, devices=0.25, shift=2.0)
    moved = at(found, 6).x - whole.x
    who = np.flatnonzero(np.abs(moved).reshape(40, -1).max(axis=1) > 0)

    assert at(found, 5) is whole
    assert at(found, 99) is at(found, 6)
    assert sorted(drifting(40, 0.25, 1)) == who.tolist()
    assert len(who) == 10
    steps = (moved / spread_of(whole)).reshape(40, 25, 6)[who]
    np.testing.assert_allclose(np.abs(steps), 2.0, rtol=1e-3)
    assert np.ptp(np.sign(steps), axis=(0, 1)).max() == 0


def test_a_slow_drift_goes_in_equal_steps_to_the_same_end() -> None:
    whole = data()
    slow = phases(whole, from_round=3, over_rounds=4, devices=1.0, shift=1.0)
    sizes = [float(np.abs((at(slow, r).x - whole.x) / spread_of(whole)).mean()) for r in range(1, 9)]

    np.testing.assert_allclose(sizes, [0, 0, 0.25, 0.5, 0.75, 1, 1, 1], atol=1e-3)
    sudden = phases(whole, from_round=3, devices=1.0, shift=1.0)
    assert np.array_equal(at(slow, 6).x, at(sudden, 3).x)


def test_a_very_slow_drift_keeps_a_bounded_number_of_copies() -> None:
    found = phases(data(), from_round=10, over_rounds=1000, shift=1.0)
    first = [phase.first_round for phase in found]

    assert len(found) == MAX_STEPS + 1
    assert first == sorted(set(first))
    assert first[0] == 1
    assert first[1] == 10
    assert first[-1] < 1010


def test_drift_in_the_first_round_leaves_no_phase_before_it() -> None:
    found = phases(data(), from_round=1, shift=1.0)

    assert [phase.first_round for phase in found] == [1]


def test_classes_are_renamed_device_by_device() -> None:
    whole = data()
    assert whole.y is not None
    found = phases(whole, from_round=2, over_rounds=2, devices=0.5, rotate_labels=True)
    renamed = []
    for round in (2, 3):
        y = at(found, round).y
        assert y is not None
        changed = (y != whole.y).reshape(40, 25)
        assert set(changed.mean(axis=1)) == {0.0, 1.0}
        assert np.array_equal(y[changed.ravel()], (whole.y[changed.ravel()] + 1) % 5)
        renamed.append(int(changed.all(axis=1).sum()))

    assert renamed == [10, 20]
    assert np.array_equal(at(found, 3).x, whole.x)
