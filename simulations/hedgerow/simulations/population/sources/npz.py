"""A NumPy archive: ``x`` ``(n, …)``, ``y`` ``(n,)``, optionally ``group`` ``(n,)``, ``x_test`` and ``y_test``."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError
from hedgerow.simulations.population.pool import Labelled, Pool, Request, split_off
from hedgerow.simulations.population.sources.held import DEFAULT_SHARE, Share, printable
from hedgerow.simulations.population.sources.shapes import check_labels, fit_images, fit_vectors

MAX_BYTES: Final = 4 * 1024 * limits.MIB
# What zipfile, zlib and numpy raise for bytes that are not what they should be; RuntimeError is zipfile's for a password.
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError, ValueError, OverflowError, EOFError,
    KeyError, RuntimeError,
)  # fmt: skip
_LARGEST: Final = float(np.finfo(np.float32).max)
_KINDS: Final = "biufU"
"""dtypes taken: booleans, integers, floats and, for groups, text. Objects would need unpickling, which runs code."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``held_out`` is the share kept for the central evaluation where there is no ``x_test``. ``white`` is the largest value of
    images (255 for bytes, 1.0 for floats).
    """

    held_out: Share = DEFAULT_SHARE
    white: Annotated[float, Meta(gt=0, le=65535)] | None = None


def read(request: Request) -> Pool:
    """Return the archive's examples. Raises ContentError if it is damaged, of an unknown kind, too large or ragged."""
    path = request.folder
    arrays = _load(path)
    for name in ("x", "y"):
        if name not in arrays:
            raise ContentError(
                f"{path}: has no array {name!r}; there are {', '.join(sorted(arrays)) or 'none'}"
            )
    examples = _labelled(arrays, "x", "y", path, request)
    groups, names = _groups(arrays.get("group"), len(examples), path)
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ContentError(f"{path}: has one of x_test and y_test; expected both or neither")
    if "x_test" in arrays:
        return Pool(examples, groups, names, _labelled(arrays, "x_test", "y_test", path, request))
    if len(examples) < 2:
        raise ContentError(f"{path}: {len(examples)} examples; at least two are needed, one is held out")
    index = np.arange(len(examples))
    rest, held = split_off(Labelled(index, None), request.options.held_out, request.seed)
    kept = np.asarray(rest.samples, np.int64)
    return Pool(examples.take(kept), groups[kept], names, examples.take(np.asarray(held.samples, np.int64)))


def _labelled(
    arrays: dict[str, npt.NDArray[Any]], x_name: str, y_name: str, path: Path, request: Request
) -> Labelled:
    x, y = arrays[x_name], arrays[y_name]
    if x.ndim < 2 or y.shape != (len(x),):
        raise ContentError(f"{path}: {x_name} {x.shape} and {y_name} {y.shape}; expected (n, …) and (n,)")
    if not x.size:
        raise ContentError(f"{path}: {x_name} is empty, {x.shape}; expected at least one example")
    if x.dtype.kind == "U":
        raise ContentError(f"{path}: {x_name} is text, {x.dtype}; expected numbers")
    if y.dtype.kind not in "biu":
        raise ContentError(f"{path}: {y_name} is {y.dtype}; expected whole numbers, 0 to classes − 1")
    labels = check_labels(y.astype(np.int64), request)
    # Written so that NaN, which is below nothing, is refused too.
    if not -_LARGEST <= float(x.min()) <= float(x.max()) <= _LARGEST:
        raise ContentError(f"{path}: {x_name} holds values that are not finite in float32")
    if request.spec.kind == "image":
        return Labelled(_images(x, path, request), labels)
    flat = x.reshape(len(x), -1) if len(request.spec.shape) == 1 else x
    return Labelled(fit_vectors(flat.astype(np.float32), request), labels)


def _images(x: npt.NDArray[Any], path: Path, request: Request) -> npt.NDArray[np.generic]:
    white = request.options.white or (1.0 if x.dtype.kind == "f" else 255.0)
    if x.min(initial=0) < 0 or x.max(initial=0) > white:
        raise request.wrong(
            "options.white", f"{path} has values from {x.min():g} to {x.max():g}; expected 0 to {white:g}"
        )
    images = x[..., None] if x.ndim == 3 else x
    if white == 255 and images.dtype == np.uint8:
        return fit_images(images, 255, request)
    return fit_images(np.rint(images.astype(np.float32) * (255 / white)).astype(np.uint8), 255, request)


def _groups(
    found: npt.NDArray[Any] | None, n: int, path: Path
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    if found is None:
        return np.full(n, -1, np.int64), ()
    if found.shape != (n,):
        raise ContentError(f"{path}: group {found.shape}; expected ({n},)")
    names, index = np.unique(found, return_inverse=True)
    return index.astype(np.int64), tuple(printable(str(name)) for name in names)


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the archive's arrays. Sizes are read from the members' headers before anything is unpacked."""
    if path.exists() and not path.is_file() and not path.is_dir():
        # A pipe would be waited for.
        raise ContentError(f"{path}: not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(_size(archive, member, path) for member in archive.namelist())
        if total > MAX_BYTES:
            raise ContentError(f"{path}: unpacks to {total} bytes; at most {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise ContentError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise ContentError(f"{path}: not a sound .npz archive: {error}") from error


def _size(archive: zipfile.ZipFile, member: str, path: Path) -> int:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    if any(type(n) is not int or n < 0 for n in shape):
        # A negative size would make room in the sum for another member's.
        raise ContentError(f"{path}: {member} has the shape {shape}")
    if dtype.kind not in _KINDS:
        raise ContentError(f"{path}: {member} holds {dtype}; expected numbers (or text for group)")
    return math.prod(shape) * int(dtype.itemsize)
