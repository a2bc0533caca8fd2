"""Dividing examples: nothing twice, nothing invented, the same for a seed; each kind gives what its name says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.population.partition.deal import deal
from hedgerow.simulations.population.partition.values import Division, proportions, shares_of
from hedgerow.simulations.scenario.spec import PartitionSpec

Ints = npt.NDArray[np.int64]


def division(n: int = 1000, devices: int = 10, classes: int = 10, groups: int = 20, **spec: Any) -> Division:
    rng = np.random.default_rng(9)
    return Division(
        n,
        devices,
        rng.integers(classes, size=n),
        rng.integers(groups, size=n),
        PartitionSpec(**spec),
        "s.toml",
    )


def sizes(parts: list[Ints]) -> list[int]:
    return [len(part) for part in parts]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["iid", "dirichlet", "label", "group", "quantity"]),
    n=st.integers(60, 400),
    devices=st.integers(1, 20),
    alpha=st.floats(0.01, 100.0),
    least=st.integers(0, 3),
    most=st.none() | st.integers(3, 50),
    seed=st.integers(0, 2**40),
)
def test_every_example_has_at_most_one_owner_and_bounds_hold(
    kind: Any, n: int, devices: int, alpha: float, least: int, most: int | None, seed: int
) -> None:
    asked = division(
        n, devices, classes=4, groups=devices,
        kind=kind, alpha=alpha, labels_per_device=4, min_examples=least, max_examples=most,
    )  # fmt: skip
    try:
        parts = deal(asked, seed)
    except ConfigError as error:
        assert "population." in str(error)
        return
    everything = np.concatenate(parts)

    assert len(parts) == devices
    assert len(np.unique(everything)) == len(everything)
    assert everything.min() >= 0
    assert everything.max() < n
    assert min(sizes(parts)) >= least
    assert max(sizes(parts)) <= (most or n)
    assert most is not None or len(everything) == n
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    assert all(np.array_equal(a, b) for a, b in zip(parts, deal(asked, seed), strict=True))


def test_another_seed_divides_otherwise() -> None:
    first, second = deal(division(), 0), deal(division(), 1)

    assert not np.array_equal(first[0], second[0])


def test_iid_shares_differ_by_at_most_one_and_have_the_same_mixture() -> None:
    asked = division(20_003, 10)
    parts = deal(asked, 0)
    assert asked.labels is not None
    mixture = np.stack([np.bincount(asked.labels[part], minlength=10) / len(part) for part in parts])

    assert max(sizes(parts)) - min(sizes(parts)) <= 1
    assert mixture.std(axis=0).max() < 0.02


def test_dirichlet_shares_have_the_spread_of_the_distribution() -> None:
    """A class's share on a device is Beta(α, α (k − 1)): mean 1 / k, variance by the textbook."""
    devices, alpha = 50, 0.5
    asked = division(100_000, devices, classes=40, kind="dirichlet", alpha=alpha, min_examples=0)
    parts = deal(asked, 3)
    assert asked.labels is not None
    held = np.stack([np.bincount(asked.labels[part], minlength=40) for part in parts])
    shares = held / held.sum(axis=0)
    k = devices
    expected = (1 / k) * (1 - 1 / k) / (alpha * k + 1)

    assert shares.mean() == pytest.approx(1 / k)
    assert shares.var() == pytest.approx(expected, rel=0.1)


def test_a_small_alpha_concentrates_classes_and_a_large_one_does_not() -> None:
    def largest(alpha: float) -> float:
        asked = division(5000, 10, kind="dirichlet", alpha=alpha)
        assert asked.labels is not None
        held = [np.bincount(asked.labels[part], minlength=10).max() / len(part) for part in deal(asked, 0)]
        return float(np.mean(held))

    assert largest(0.05) > 0.5
    assert largest(1000.0) < 0.14


def test_an_alpha_so_small_that_gammas_underflow_still_gives_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([proportions(rng, 1e-4, 1000) for _ in range(20)])

    assert np.isfinite(drawn).all()
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    assert np.median(drawn.max(axis=1)) > 0.9


def test_proportions_have_the_moments_of_a_dirichlet_draw() -> None:
    rng = np.random.default_rng(1)
    drawn = np.stack([proportions(rng, 0.7, 5) for _ in range(20_000)])

    assert drawn[:, 0].mean() == pytest.approx(0.2, abs=0.005)
    assert drawn[:, 0].var() == pytest.approx(0.2 * 0.8 / (0.7 * 5 + 1), rel=0.03)


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_whole_shares_add_up_and_are_within_one_of_the_exact_ones(count: int) -> None:
    weights = np.random.default_rng(2).random(13)
    shares = shares_of(weights, count)

    assert shares.sum() == count
    assert shares.min() >= 0
    assert np.abs(shares - weights / weights.sum() * count).max() < 1


def test_each_device_holds_so_many_labels_and_all_are_held_about_equally() -> None:
    asked = division(20_000, 100, kind="label", labels_per_device=3)
    parts = deal(asked, 0)
    assert asked.labels is not None
    kinds = [set(asked.labels[part].tolist()) for part in parts]
    holders = np.array([sum(label in held for held in kinds) for label in range(10)])

    assert {len(held) for held in kinds} == {3}
    assert holders.tolist() == [30] * 10
    assert len({frozenset(held) for held in kinds}) > 20, "combinations vary"


def test_a_class_with_fewer_examples_than_holders_is_refused_by_name() -> None:
    labels = np.array([0] * 100 + [1] * 3)
    asked = Division(103, 10, labels, None, PartitionSpec(kind="label", labels_per_device=2), "s.toml")

    with pytest.raises(
        ConfigError, match=r"s\.toml: population\.partition\.labels_per_device: class 1 has 3 "
    ):
        deal(asked, 0)


@pytest.mark.parametrize(
    ("devices", "each", "why"),
    [(3, 2, "leave some to nobody; expected at least 4"), (30, 11, "at most the 10")],
)
def test_labels_that_devices_cannot_hold_are_refused(devices: int, each: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        deal(division(devices=devices, kind="label", labels_per_device=each), 0)


def test_whole_groups_go_to_devices_and_sizes_even_out() -> None:
    asked = division(10_000, 8, groups=100, kind="group")
    parts = deal(asked, 0)
    assert asked.groups is not None
    where = [set(asked.groups[part].tolist()) for part in parts]

    assert sum(len(held) for held in where) == 100
    assert len(set.union(*where)) == 100
    assert max(sizes(parts)) < 1.1 * min(sizes(parts))


def test_fewer_groups_than_devices_are_shared_by_size() -> None:
    groups = np.repeat([0, 1, 2], [600, 300, 100])
    asked = Division(1000, 10, None, groups, PartitionSpec(kind="group"), "s.toml")
    parts = deal(asked, 0)
    of = [set(groups[part].tolist()) for part in parts]

    assert all(len(held) == 1 for held in of)
    assert [sum(held == {g} for held in of) for g in range(3)] == [6, 3, 1]
    assert sizes(parts) == [100] * 10


def test_natural_gives_each_device_one_group_in_the_sources_order() -> None:
    asked = division(500, 20, kind="natural")
    assert asked.groups is not None

    for device, part in enumerate(deal(asked, 5)):
        assert np.array_equal(part, np.flatnonzero(asked.groups == device))


def test_natural_leaves_surplus_groups_to_nobody_and_refuses_too_few() -> None:
    asked = division(500, 7, kind="natural")
    assert asked.groups is not None
    held = {int(g) for part in deal(asked, 0) for g in asked.groups[part]}

    assert len(held) == 7
    with pytest.raises(
        ConfigError, match=r"population\.devices: expected at most the source's 20 groups, got 21"
    ):
        deal(division(500, 21, kind="natural"), 0)


def test_quantity_gives_sizes_that_differ_and_one_mixture() -> None:
    asked = division(50_000, 10, kind="quantity", alpha=0.7)
    parts = deal(asked, 0)
    assert asked.labels is not None
    large = [np.bincount(asked.labels[part], minlength=10) / len(part) for part in parts if len(part) > 2000]

    assert max(sizes(parts)) > 5 * min(sizes(parts))
    assert np.abs(np.stack(large) - 0.1).max() < 0.03


def test_poor_devices_are_lifted_and_the_others_keep_what_they_drew() -> None:
    free = deal(division(3000, 60, kind="dirichlet", alpha=0.05, min_examples=0), 4)
    held = deal(division(3000, 60, kind="dirichlet", alpha=0.05, min_examples=10), 4)
    rich = [d for d in range(60) if len(free[d]) >= 10]

    assert min(sizes(free)) < 10
    assert min(sizes(held)) == 10
    assert all(set(held[d].tolist()) <= set(free[d].tolist()) for d in rich)
    assert sum(sizes(held)) == 3000


def test_more_than_there_is_cannot_be_promised() -> None:
    with pytest.raises(
        ConfigError, match=r"partition\.min_examples: 101 on each of 10 devices are 1010 .* has 1000"
    ):
        deal(division(min_examples=101), 0)
    with pytest.raises(ConfigError, match=r"partition\.min_examples: device \d+ has "):
        deal(division(1000, 20, kind="natural", min_examples=49), 0)


@pytest.mark.parametrize("kind", ["dirichlet", "label", "group", "natural"])
def test_kinds_that_need_labels_or_groups_say_so(kind: Any) -> None:
    bare = Division(100, 4, None, None, PartitionSpec(kind=kind), "s.toml")

    with pytest.raises(ConfigError, match=r"s\.toml: population\.partition\.kind: .*the source has none"):
        deal(bare, 0)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "label", "quantity", "group"])
def test_ten_thousand_devices_are_divided_whole(kind: Any) -> None:
    parts = deal(division(200_000, 10_000, groups=3000, kind=kind, labels_per_device=2, min_examples=1), 0)

    assert len(parts) == 10_000
    assert sum(sizes(parts)) == 200_000
    assert min(sizes(parts)) >= 1
