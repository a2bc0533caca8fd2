"""From a request's body to one sample of a spec: bounded before it is decoded, checked after. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import TensorSpec
from hedgerow.shared.unreadable import UNREADABLE

MAX_JSON_BYTES: Final = limits.MIB
"""JSON costs many times its size in memory while it is decoded; larger samples come as raw bytes."""


class PredictBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``data`` is a nested list in the shape of the spec."""

    spec: str
    data: list[Any]


# Made at import: two threads that meet a Struct for the first time at once crash msgspec while it reads the type.
_BODIES = msgspec.json.Decoder(PredictBody)


def decode_json(body: bytes, specs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, npt.NDArray[np.generic]]:
    """Return spec and sample of a JSON body. Raises ContentError, or KeyError for an unknown spec."""
    if len(body) > MAX_JSON_BYTES:
        raise ContentError(f"{len(body)} bytes of JSON; at most {MAX_JSON_BYTES}, send raw bytes instead")
    try:
        given = _BODIES.decode(body)
    except RecursionError as error:
        raise ContentError("nested too deeply") from error
    except UNREADABLE as error:
        raise ContentError(f"not a predict request: {error}") from error
    spec = specs[given.spec]
    return spec, _checked(_array(given.data, spec), spec)


def decode_raw(
    body: bytes, name: str, specs: Mapping[str, TensorSpec]
) -> tuple[TensorSpec, npt.NDArray[np.generic]]:
    """Return spec and sample of raw little-endian bytes. Raises ContentError, or KeyError for an unknown spec."""
    spec = specs[name]
    if len(body) != spec.nbytes:
        raise ContentError(f"{len(body)} bytes where {spec.dtype} {spec.shape} takes {spec.nbytes}")
    array = np.frombuffer(body, np.dtype(spec.dtype).newbyteorder("<")).astype(spec.dtype).reshape(spec.shape)
    return spec, _checked(array, spec)


def _array(data: list[Any], spec: TensorSpec) -> npt.NDArray[np.generic]:
    flat: list[Any] = []
    _flatten(data, spec.shape, flat)
    numbers = int if spec.dtype != "float32" else (int, float)
    if not all(isinstance(value, numbers) and not isinstance(value, bool) for value in flat):
        raise ContentError(f"data must hold numbers of {spec.dtype} only")
    try:
        wide = np.array(flat, np.float64 if spec.dtype == "float32" else np.int64)
    except OverflowError as error:
        raise ContentError(f"a number is beyond {spec.dtype}") from error
    if spec.dtype in ("uint8", "int32"):
        bounds = np.iinfo(spec.dtype)
        if wide.min() < bounds.min or wide.max() > bounds.max:
            raise ContentError(f"a number is beyond {spec.dtype}")
    with np.errstate(over="ignore"):
        return wide.astype(spec.dtype).reshape(spec.shape)


def _flatten(data: Any, shape: tuple[int, ...], into: list[Any]) -> None:
    """Gather the leaves of nested lists of exactly ``shape``."""
    if not isinstance(data, list) or len(data) != shape[0]:
        raise ContentError(f"data must be nested lists; here {shape[0]} entries were expected")
    if len(shape) == 1:
        into.extend(data)
        return
    for item in data:
        _flatten(item, shape[1:], into)


def _checked(array: npt.NDArray[np.generic], spec: TensorSpec) -> npt.NDArray[np.generic]:
    spec.check(array[np.newaxis])
    if spec.dtype == "float32" and not np.isfinite(array.astype(np.float32, copy=False)).all():
        raise ContentError("data holds a number that is not finite")
    return array
