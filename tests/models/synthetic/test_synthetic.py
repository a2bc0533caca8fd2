"""Synthetic sets: the same for the same seed, one task for all seeds, learnable, and not by a linear model alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from hedgerow.models.recipes.image_cnn import RECIPE
from hedgerow.models.synthetic.images import BLOCK, ImageKind, make_images
from hedgerow.models.synthetic.vectors import VectorKind, make_vectors


def test_the_same_seed_gives_the_same_images_and_another_gives_others() -> None:
    kind = ImageKind(12, 16, 3, 5)
    one, again, other = make_images(kind, 50, 3, 2), make_images(kind, 50, 3, 2), make_images(kind, 50, 4, 2)

    assert one.pixels.shape == (50, 12, 16, 3)
    assert one.pixels.dtype == np.uint8
    assert np.array_equal(one.pixels, again.pixels)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.pixels, other.pixels)
    assert set(one.groups) == {0, 1}


def test_no_two_images_are_alike_across_blocks() -> None:
    made = make_images(ImageKind(), 2 * BLOCK + 3, 0)

    assert len({image.tobytes() for image in made.pixels}) == len(made.pixels)


def test_a_class_looks_alike_for_all_seeds() -> None:
    plain = ImageKind(noise=0.0, clutter=0.0)
    first, second = make_images(plain, 600, 0), make_images(plain, 600, 1)
    means = [
        np.stack([s.pixels[s.labels == c].mean(axis=0).ravel() for c in range(10)]) for s in (first, second)
    ]
    likeness = np.corrcoef(np.concatenate(means))[:10, 10:]

    assert np.array_equal(likeness.argmax(axis=1), np.arange(10))


def test_images_use_the_range_and_are_not_saturated() -> None:
    pixels = make_images(ImageKind(), 500, 0).pixels

    assert ((pixels == 0) | (pixels == 255)).mean() < 0.1
    assert pixels.std() > 30


def test_groups_differ_in_how_they_see() -> None:
    made = make_images(ImageKind(noise=0.0, clutter=0.0), 2000, 0, groups=4)
    contrast = [made.pixels[made.groups == g].std() for g in range(4)]

    assert max(contrast) > 1.15 * min(contrast)


def test_a_convolution_learns_what_a_linear_model_cannot() -> None:
    train, test = make_images(ImageKind(), 3000, 0), make_images(ImageKind(), 600, 1)
    x, y = (torch.from_numpy(train.pixels / np.float32(255)), torch.from_numpy(train.labels))
    torch.manual_seed(0)
    module = RECIPE.build({"filters": 8})
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    for _ in range(3):
        for chosen in torch.split(torch.randperm(len(x)), 32):
            optimizer.zero_grad()
            RECIPE.loss(module, x[chosen], y[chosen]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        found = module(torch.from_numpy(test.pixels / np.float32(255))).argmax(dim=1).numpy()
    convolution = float((found == test.labels).mean())
    linear = RidgeClassifier(alpha=100.0).fit(train.pixels.reshape(3000, -1) / 255.0, train.labels)

    assert convolution > 0.75
    assert convolution > linear.score(test.pixels.reshape(600, -1) / 255.0, test.labels) + 0.02


def test_vectors_are_reproducible_bounded_and_one_task_for_all_seeds() -> None:
    kind = VectorKind(24, 6)
    one, again, other = make_vectors(kind, 3000, 0), make_vectors(kind, 3000, 0), make_vectors(kind, 1000, 9)

    assert one.values.dtype == np.float32
    assert np.array_equal(one.values, again.values)
    assert one.values.min() >= 0
    assert one.values.max() <= 1
    linear = LogisticRegression(max_iter=300).fit(one.values, one.labels)
    assert 0.4 < linear.score(other.values, other.labels) < 0.95


@pytest.mark.parametrize("groups", [1, 5])
def test_groups_move_vectors(groups: int) -> None:
    made = make_vectors(VectorKind(), 4000, 0, groups)
    means = np.stack([made.values[made.groups == g].mean(axis=0) for g in range(groups)])

    assert set(made.groups) == set(range(groups))
    assert (float(means.std(axis=0).mean()) > 0.01) == (groups > 1)
