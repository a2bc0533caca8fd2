"""Tensors by specification: what store, trainer, runtime and predict API are keyed by, never by task."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError

Kind = Literal["window", "image", "tokens", "scores"]
DType = Literal["float32", "uint8", "int32", "int64"]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named tensor without its batch axis.

    A telemetry window is float32 ``(rows, channels)``, an image uint8 ``(height, width, channels)``.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    kind: Kind

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= limits.MAX_TENSOR_DIMS or min(self.shape) < 1:
            raise ValueError(
                f"tensor {self.name!r}: shape {self.shape} needs 1 to {limits.MAX_TENSOR_DIMS} positive axes"
            )
        if self.elements > limits.MAX_TENSOR_ELEMENTS:
            raise ValueError(
                f"tensor {self.name!r}: {self.elements} elements, at most {limits.MAX_TENSOR_ELEMENTS}"
            )

    @property
    def elements(self) -> int:
        """Number of elements of one sample."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return self.elements * np.dtype(self.dtype).itemsize

    def check(self, array: npt.NDArray[np.generic]) -> None:
        """Raise ContentError unless ``array`` is one batch ``(n, *shape)`` of this spec's dtype."""
        if array.dtype != np.dtype(self.dtype) or array.shape[1:] != self.shape:
            raise ContentError(
                f"tensor {self.name!r}: expected {self.dtype} (n, {', '.join(map(str, self.shape))}), "
                f"got {array.dtype} {array.shape}"
            )


class Sample(msgspec.Struct, frozen=True):
    """One example as the device keeps it: a tensor with its time span; it never leaves the device.

    ``start_us`` and ``end_us`` are microseconds since 1970 in UTC, of the first and the last reading.
    ``valid`` is the share of readings that were measured, not filled, in ``[0, 1]``.
    ``label`` is a class index where a person or a file gave one.
    """

    spec: str
    array: npt.NDArray[np.generic]
    start_us: int
    end_us: int
    feature_set: str
    valid: float = 1.0
    label: int | None = None
