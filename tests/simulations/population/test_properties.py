"""What holds of every population, whatever the numbers: nobody's example is another's, nothing is lost, shares come out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulation_scenarios import population, scenario

from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.population.devices import draw_classes, needed_mib
from hedgerow.simulations.population.drift import MAX_STEPS, drifting, phases_of, spread_of
from hedgerow.simulations.population.prepare import part_off
from hedgerow.simulations.population.values import FlatData, Population
from hedgerow.simulations.scenario.spec import DeviceClassSpec, DriftSpec

seeds = st.integers(0, 2**63 - 1)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(1, 300), seeds)
def test_every_class_is_within_one_of_its_share(shares: list[float], devices: int, seed: int) -> None:
    drawn = draw_classes([DeviceClassSpec(f"c{n}", s) for n, s in enumerate(shares)], devices, seed)
    exact = np.array(shares) / sum(shares) * devices
    counts = np.bincount(drawn, minlength=len(shares))
    assert counts.sum() == devices == len(drawn)
    assert np.abs(counts - exact).max() < 1 + 1e-9


@given(st.integers(1, 10**9), st.sampled_from(["sgd", "adam"]), st.sampled_from([0.0, 0.9]))
def test_memory_is_counted_in_whole_vectors(n: int, optimizer: str, momentum: float) -> None:
    training = TrainingSpec(optimizer=optimizer, momentum=momentum)  # type: ignore[arg-type]
    vectors = needed_mib(n, training) * 2**20 / (4 * n)
    assert vectors == pytest.approx({("sgd", 0.0): 3, ("sgd", 0.9): 4}.get((optimizer, momentum), 5))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.floats(0, 0.9), seeds, st.booleans())
def test_what_is_parted_off_is_neither_lost_nor_trained_on(
    counts: list[int], share: float, seed: int, ordered: bool
) -> None:
    ends = np.cumsum(counts)
    parts = [np.arange(end - n, end) for n, end in zip(counts, ends, strict=True)]
    train, test = part_off(parts, share, seed, ordered)
    for part, kept, held in zip(parts, train, test, strict=True):
        assert sorted([*kept, *held]) == part.tolist()
        assert len(held) == min(round(share * len(part)), max(0, len(part) - 1))
        assert np.all(np.diff(kept) > 0) and np.all(np.diff(held) > 0)
        if ordered and len(kept) and len(held):
            assert kept.max() < held.min()


@given(st.integers(1, 50), st.floats(0, 1), seeds)
def test_as_many_devices_drift_as_the_share_says_each_once(devices: int, share: float, seed: int) -> None:
    who = drifting(devices, share, seed)
    assert len(who) == len(set(who.tolist())) == round(share * devices)
    assert set(who.tolist()) <= set(range(devices))


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 5), st.floats(0, 1), seeds, st.integers(1, 130)
)
@settings(deadline=None)
def test_a_drift_only_ever_grows_and_ends_where_it_was_to(
    first: int, over: int, shift: float, share: float, seed: int, asked: int
) -> None:
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    whole = FlatData(x, None, np.arange(0, 9, 2))
    spec = DriftSpec(from_round=first, over_rounds=over, shift=shift, devices=share)
    found = phases_of(whole, spec, seed, spread_of(whole), 1)
    rounds = [phase.first_round for phase in found]
    assert rounds[0] == 1
    assert rounds == sorted(set(rounds))
    assert len(rounds) <= MAX_STEPS + 1
    nobody = np.zeros(4, np.int64)
    made = Population(found, None, None, nobody, nobody, ("all",))  # type: ignore[arg-type]
    moved = [float(np.abs(made.at(r).x - x).max()) for r in (1, asked, asked + 1, first + over, 10_000)]
    if first > 1:
        assert moved[0] == 0.0
    assert moved[1] <= moved[2] <= moved[4]
    assert moved[3] == moved[4]
    if asked < first:
        assert moved[1] == 0.0
    if round(share * 4):
        assert moved[4] == pytest.approx(shift * float(spread_of(whole).max()), rel=1e-3)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "label", "quantity"])
@given(
    devices=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.3]),
    least=st.integers(1, 20),
)
@settings(max_examples=4, deadline=None)
def test_no_digit_is_on_two_devices_nor_both_trained_and_tested(
    kind: str, devices: int, seed: int, share: float, least: int
) -> None:
    made = scenario(
        seed=seed,
        population__devices=devices,
        population__test_share=share,
        population__partition={
            "kind": kind,
            "min_examples": least,
            "labels_per_device": max(2, -(-10 // devices)),  # no class is nobody's
        },
    )
    found = population(made)
    train = found.at(1)
    rows = [tuple(x.ravel().tolist()) for x in train.x]
    if found.device_test is not None:
        rows += [tuple(x.ravel().tolist()) for x in found.device_test.x]
    public = found.held_out.x
    # Two images of the set may be the same by chance: no more than there are in it.
    assert len(rows) - len(set(rows)) <= 5
    counts = np.diff(train.offsets)
    tested = 0 if found.device_test is None else np.diff(found.device_test.offsets)
    assert np.all(counts + tested >= least)
    assert len(public) > 0
    again = population(made)
    assert again.at(1).x.tobytes() == train.x.tobytes()
    assert np.array_equal(again.at(1).offsets, train.offsets)
