"""Feature sets of images: the transform from what a device stores to what a model takes, by versioned name.

Telemetry windows are transformed by ``hedgerow.shared.scoring``; an image's feature set says all there is to say in
its name, so that a device refuses a bundle whose transform it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import UnsupportedError

Transform = Callable[[npt.NDArray[np.generic]], npt.NDArray[np.float32]]

_UNIT_BRIGHTNESS = re.compile(r"unit-brightness-([1-9][0-9]{0,4})-v1")


def image_transform(feature_set: str) -> Transform:
    """Return the transform that ``feature_set`` names; shape stays, the result is float32.

    ``unit-brightness-N-v1`` divides by N in float32. Raises UnsupportedError for a name that is not known here.
    """
    found = _UNIT_BRIGHTNESS.fullmatch(feature_set)
    if found is None:
        raise UnsupportedError(f"feature set {feature_set!r} is not known; this is for unit-brightness-N-v1")
    brightest = np.float32(int(found.group(1)))

    def transform(images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        scaled: npt.NDArray[np.float32] = images.astype(np.float32) / brightest
        return scaled

    return transform
