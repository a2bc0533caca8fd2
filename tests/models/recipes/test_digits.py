"""The digit classifier as a recipe: real digits, split without overlap, private by construction."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from hedgerow.models.recipe import find_recipe
from hedgerow.models.recipes.digits import RECIPE, device_split, to_input
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.features import image_transform


def test_it_is_installed_and_small() -> None:
    parameters = sum(p.numel() for p in RECIPE.build({}).parameters())

    assert find_recipe("digits-cnn") is RECIPE
    assert parameters < 40_000


def test_devices_hold_disjoint_shares_and_none_of_the_public_set() -> None:
    shares = device_split(5, 0.5, 0)
    held = [image.tobytes() for share in shares for image in share.images]
    public = {(x * 16).astype(np.uint8).tobytes() for x in RECIPE.public_set({}).x}

    assert sum(len(share.labels) for share in shares) == 1797 - 360
    assert len(set(held)) >= len(held) - 2
    assert not public & set(held)


def test_a_small_alpha_gives_devices_fewer_kinds() -> None:
    def kinds(alpha: float) -> float:
        shares = device_split(4, alpha, 1)
        return float(np.mean([np.bincount(s.labels, minlength=10).max() / len(s.labels) for s in shares]))

    assert kinds(0.2) > kinds(100.0) + 0.05


def test_the_same_seed_gives_the_same_split() -> None:
    first, again = device_split(3, 1.0, 4), device_split(3, 1.0, 4)

    assert all(np.array_equal(a.images, b.images) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(("devices", "alpha"), [(0, 1.0), (5, 0.0), (500, 1.0)])
def test_a_split_that_cannot_be_is_refused(devices: int, alpha: float) -> None:
    with pytest.raises(ConfigError):
        device_split(devices, alpha, 0)


def test_training_and_serving_make_the_same_input() -> None:
    images = device_split(2, 1.0, 0)[0].images[:20]
    made = RECIPE.training_set(images, [0] * 20, None, {}, True).x

    assert np.array_equal(made, image_transform(RECIPE.feature_set({}))(images))
    assert np.array_equal(made, to_input(images))


def test_images_without_a_label_are_left_out_and_strange_labels_refused() -> None:
    images = np.zeros((3, 8, 8, 1), np.uint8)

    assert RECIPE.training_set(images, [1, None, 2], None, {}, False).y is not None
    assert len(RECIPE.training_set(images, [1, None, 2], None, {}, False).x) == 2
    with pytest.raises(ContentError, match="no labelled"):
        RECIPE.training_set(images, [None] * 3, None, {}, False)
    with pytest.raises(ContentError, match="0 to 9"):
        RECIPE.training_set(images, [1, 2, 10], None, {}, False)


def test_the_loss_is_per_image_and_needs_labels() -> None:
    module, x = RECIPE.build({}), torch.rand(6, 8, 8, 1)
    y = torch.arange(6)

    together = RECIPE.loss(module, x, y)

    assert tuple(together.shape) == (6,)
    assert torch.allclose(together[2:3], RECIPE.loss(module, x[2:3], y[2:3]), atol=1e-6)
    with pytest.raises(ContentError):
        RECIPE.loss(module, x, None)


def test_the_score_leaves_calibration_and_golden_images_out() -> None:
    public = RECIPE.public_set({})
    asked: list[int] = []

    def perfect(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        known = {image.tobytes(): label for image, label in zip(public.x, public.y, strict=True)}  # type: ignore[arg-type]
        return np.eye(10, dtype=np.float32)[[known[image.tobytes()] for image in x]]

    assert RECIPE.score(perfect, public, {})["accuracy"] == 1.0
    assert asked == [len(public.x) - len(public.calibration) - len(public.golden)]


def test_unknown_parameters_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="filtres"):
        RECIPE.check({"filtres": 3})


def test_the_digits_are_scikit_learns_own_without_importing_it() -> None:
    found = load_digits()
    whole = [*device_split(1, 1.0, 0)]
    public = RECIPE.public_set({})
    held = np.concatenate([whole[0].images.reshape(-1, 64), (public.x * 16).astype(np.uint8).reshape(-1, 64)])
    order, other = np.lexsort(held.T), np.lexsort(found.data.T)
    assert np.array_equal(held[order], found.data[other])
    labels = np.concatenate([whole[0].labels, public.y])
    assert np.array_equal(np.sort(labels), np.sort(found.target))
    code = "import sys; from hedgerow.models.recipes.digits import RECIPE; RECIPE.public_set({}); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
