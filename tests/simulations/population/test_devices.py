"""Kinds of boards: as many of each as the shares say, and what training needs of their memory."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.population.devices import draw_classes, needed_mib
from hedgerow.simulations.scenario.spec import DeviceClassSpec


def classes(*shares: float) -> list[DeviceClassSpec]:
    return [DeviceClassSpec(f"class-{n}", share) for n, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("shares", "devices", "counts"),
    [
        ((1.0,), 7, [7]),
        ((3, 5, 2), 100, [30, 50, 20]),
        ((1, 1, 1), 10, [4, 3, 3]),
        ((99, 1), 10, [10, 0]),
        ((0.2, 0.8), 5, [1, 4]),
    ],
)
def test_numbers_follow_the_shares(shares: tuple[float, ...], devices: int, counts: list[int]) -> None:
    drawn = draw_classes(classes(*shares), devices, 0)

    assert np.bincount(drawn, minlength=len(shares)).tolist() == counts


def test_places_are_random_and_the_same_for_a_seed() -> None:
    one, again, other = (draw_classes(classes(1, 1), 50, seed) for seed in (0, 0, 1))

    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, np.sort(one))


@pytest.mark.parametrize(
    ("training", "copies"),
    [
        (TrainingSpec(), 3),
        (TrainingSpec(momentum=0.9), 4),
        (TrainingSpec(optimizer="adam"), 5),
    ],
)
def test_memory_counts_three_copies_and_the_optimizers(training: TrainingSpec, copies: int) -> None:
    assert needed_mib(2**18, training) == copies
