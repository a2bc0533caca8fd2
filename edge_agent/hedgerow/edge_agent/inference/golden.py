"""Golden samples: whether a model on this very device answers as it did where it was made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hedgerow.shared.bundle import Manifest, Precision
from hedgerow.shared.errors import ContentError

Floats = npt.NDArray[np.float32]


def check_golden(manifest: Manifest, precision: Precision, infer: Callable[[Floats], Floats]) -> float:
    """Return the largest share of its tolerance that any golden sample uses up, at most 1.

    Raises ContentError if there is no golden sample, one is malformed, or an answer is not finite or further from
    the recorded one than ``tolerance`` allows.
    """
    if not manifest.golden:
        raise ContentError("the bundle has no golden sample to check this device with")
    worst = 0.0
    for position, golden in enumerate(manifest.golden):
        x = _tensor(golden.input, manifest.input.shape, f"golden sample {position}: input")
        expected = _tensor(golden.output, manifest.output.shape, f"golden sample {position}: output")
        tolerance = golden.tolerance.get(precision, 0.0)
        if not tolerance > 0:
            raise ContentError(f"golden sample {position} says no tolerance for {precision}")
        answer = infer(x)
        difference = float(np.abs(answer - expected).max())
        if not difference <= tolerance:  # NaN fails too
            raise ContentError(
                f"golden sample {position}: the answer is off by {difference:.4g}, {precision} allows {tolerance:.4g}"
            )
        worst = max(worst, difference / tolerance)
    return worst


def _tensor(data: bytes, shape: tuple[int, ...], what: str) -> Floats:
    values = np.frombuffer(data, "<f4") if len(data) % 4 == 0 else np.empty(0, np.float32)
    if values.size != int(np.prod(shape)) or not np.isfinite(values).all():
        raise ContentError(f"{what} has {len(data)} bytes or a non-finite value; expected float32 {shape}")
    return values.astype(np.float32).reshape((1, *shape))
