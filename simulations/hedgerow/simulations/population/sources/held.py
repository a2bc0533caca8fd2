"""What sources without a public set share: a part of the examples is held out for the central evaluation."""

from __future__ import annotations

from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from msgspec import Meta

Share = Annotated[float, Meta(gt=0, lt=1)]
DEFAULT_SHARE: Final = 0.2
Doubles = npt.NDArray[np.float64]


def printable(name: str) -> str:
    """Return a group's name from a file as UTF-8 can hold it: a folder's name may be any bytes, a result's may not."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def standardised(values: Doubles) -> Doubles:
    """Return columns ``(n, k)`` with mean 0.5 and standard deviation 0.25: about 0 to 1; a constant column is 0.5.

    Taken over all rows at once: a fleet's devices need these two numbers a column as public constants.
    """
    spread = values.std(axis=0)
    made: Doubles = 0.5 + 0.25 * (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return made
