from __future__ import annotations

import numpy as np
import pytest

from hedgerow.models.recipes.digits import RECIPE, to_input
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.features import image_transform


def test_brightness_becomes_a_share_of_the_brightest() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)

    found = image_transform("unit-brightness-8-v1")(images)

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images / 8)


def test_a_device_prepares_an_image_bit_for_bit_as_training_did() -> None:
    images = np.random.default_rng(0).integers(0, 17, size=(50, 8, 8, 1), dtype=np.uint8)

    np.testing.assert_array_equal(image_transform(RECIPE.feature_set({}))(images), to_input(images))


@pytest.mark.parametrize(
    "name", ["", "unit-brightness-0-v1", "unit-brightness-16-v2", "unit-brightness-999999-v1"]
)
def test_a_transform_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="not known"):
        image_transform(name)
