"""From raw samples to examples: by the recipe itself, device by device, in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.population.pool import Labelled, Request, split_off, ungrouped
from hedgerow.simulations.population.prepare import flat_data, held_out_set, part_off

RNG = np.random.default_rng(0)


def request(recipe: str = "mlp", **parameters: Any) -> Request:
    found = find_recipe(recipe)
    checked = found.check({"inputs": 3, "classes": 2, **parameters} if recipe == "mlp" else parameters)
    return Request(found, checked, 4, 0, "s.toml", None)


def vectors(n: int = 20) -> Labelled:
    return Labelled(RNG.random((n, 3)).astype(np.float32), np.arange(n) % 2)


def test_each_devices_slice_is_what_the_recipe_makes_of_its_samples() -> None:
    asked, whole = request(), vectors()
    parts = [np.array([3, 1, 7]), np.array([], np.int64), np.array([19])]
    made = flat_data(whole, parts, asked, private=False)

    assert made.offsets.tolist() == [0, 3, 3, 4]
    assert made.x.flags.c_contiguous
    assert made.y is not None
    for device, part in enumerate(parts):
        x, y = made.of(device)
        assert made.count(device) == len(part)
        assert np.array_equal(x, whole.samples[part])
        assert y is not None
        assert np.array_equal(y, whole.labels[part])  # type: ignore[index]


def test_slices_are_views_and_copy_nothing() -> None:
    made = flat_data(vectors(), [np.arange(5), np.arange(5, 20)], request(), private=False)

    assert np.shares_memory(made.of(1)[0], made.x)


def test_a_device_that_the_recipe_refuses_is_named() -> None:
    bad = Labelled(np.full((4, 3), np.nan, np.float32), np.zeros(4, np.int64))

    with pytest.raises(ConfigError, match=r"s\.toml: population: device 1: .*not finite"):
        flat_data(
            Labelled(np.concatenate([vectors(4).samples, bad.samples]), np.zeros(8, np.int64)),
            [np.arange(4), np.arange(4, 8)],
            request(),
            private=False,
        )
    with pytest.raises(ConfigError, match="no device has an example"):
        flat_data(vectors(), [np.array([], np.int64)] * 2, request(), private=False)


def test_nothing_is_set_aside_of_a_held_out_set() -> None:
    asked, whole = request(), vectors(9)
    made = held_out_set(whole, asked)
    right = np.eye(2, dtype=np.float32)

    assert np.array_equal(made.x, whole.samples)
    assert asked.recipe.score(lambda x: right[np.arange(len(x)) % 2], made, asked.parameters) == {
        "accuracy": 1.0
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    share=st.floats(0.0, 0.9),
    ordered=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_devices_samples_are_parted_without_loss(
    counts: list[int], share: float, ordered: bool, seed: int
) -> None:
    ends = np.cumsum(counts)
    parts = [np.arange(end - count, end) for count, end in zip(counts, ends, strict=True)]
    train, test = part_off(parts, share, seed, ordered)

    for whole, kept, held in zip(parts, train, test, strict=True):
        assert sorted([*kept.tolist(), *held.tolist()]) == whole.tolist()
        assert len(held) == min(round(share * len(whole)), max(0, len(whole) - 1))
        assert np.array_equal(kept, np.sort(kept))
        if ordered and len(held):
            assert kept.max() < held.min()


def test_what_is_not_ordered_is_parted_at_random_by_device_and_seed() -> None:
    parts = [np.arange(100), np.arange(100, 200)]
    first, other = part_off(parts, 0.5, 0, False)[1], part_off(parts, 0.5, 1, False)[1]

    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[1] - 100)


@pytest.mark.parametrize(("n", "share", "held"), [(2, 0.01, 1), (2, 0.99, 1), (100, 0.2, 20), (10, 0.0, 1)])
def test_splitting_off_leaves_something_on_either_side(n: int, share: float, held: int) -> None:
    whole = vectors(n)
    rest, out = split_off(whole, share, 0)
    together = np.concatenate([rest.samples, out.samples])

    assert (len(rest), len(out)) == (n - held, held)
    assert {row.tobytes() for row in together} == {row.tobytes() for row in whole.samples}
    with pytest.raises(ValueError, match="cannot be parted"):
        split_off(vectors(1), share, 0)


def test_a_pool_without_groups_says_so() -> None:
    pool = ungrouped(vectors().samples, None)

    assert set(pool.groups.tolist()) == {-1}
    assert pool.group_names == ()
