"""The IDX files of MNIST and its like, plain or gzip: images of bytes with labels, and where they are, test images.

A file is two zero bytes, a type, the number of axes, each axis as a big-endian 32-bit count, then the values. ``path`` is
the folder; names are MNIST's unless ``options`` say otherwise.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError
from hedgerow.simulations.population.pool import Labelled, Pool, Request, split_off, ungrouped
from hedgerow.simulations.population.sources.held import DEFAULT_SHARE, Share
from hedgerow.simulations.population.sources.shapes import check_labels, fit_images

MAX_BYTES: Final = 2 * 1024 * limits.MIB
_UNSIGNED_BYTE: Final = 8
_GZIP: Final = b"\x1f\x8b"
Bytes = npt.NDArray[np.uint8]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """File names in the folder; ``.gz`` may follow. Without both test files, the share ``held_out`` is held out."""

    images: str = "train-images-idx3-ubyte"
    labels: str = "train-labels-idx1-ubyte"
    test_images: str = "t10k-images-idx3-ubyte"
    test_labels: str = "t10k-labels-idx1-ubyte"
    held_out: Share = DEFAULT_SHARE


def read(request: Request) -> Pool:
    """Return the images. Raises ContentError if a file is missing, damaged, of another type, or too large."""
    options: Options = request.options
    folder = request.folder
    examples = _labelled(_found(folder, options.images), _found(folder, options.labels), request)
    tests = [_optional(folder, name) for name in (options.test_images, options.test_labels)]
    if tests[0] is not None and tests[1] is not None:
        return ungrouped(examples.samples, examples.labels, _labelled(tests[0], tests[1], request))
    if len(examples) < 2:
        raise ContentError(f"{folder}: {len(examples)} images; at least two are needed, one is held out")
    rest, held = split_off(examples, options.held_out, request.seed)
    return ungrouped(rest.samples, rest.labels, held)


def read_idx(path: Path) -> Bytes:
    """Return the array of an IDX file of bytes, uint8. Raises ContentError if it is not one, whole and within bounds."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == _GZIP
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0":
                raise ContentError(f"{path}: not an IDX file: it begins with {head.hex() or 'nothing'}")
            if head[2] != _UNSIGNED_BYTE:
                raise ContentError(
                    f"{path}: values of IDX type {head[2]:#04x}; expected unsigned bytes (0x08)"
                )
            axes = head[3]
            sizes = file.read(4 * axes)
            if not 1 <= axes <= limits.MAX_TENSOR_DIMS or len(sizes) < 4 * axes:
                raise ContentError(f"{path}: {axes} axes in a head of {4 + len(sizes)} bytes")
            shape = struct.unpack(f">{axes}I", sizes)
            count = math.prod(shape)
            if count > MAX_BYTES:
                raise ContentError(f"{path}: {count} values; at most {MAX_BYTES}")
            data = file.read(count + 1)
    except OSError as error:
        raise ContentError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise ContentError(f"{path}: damaged gzip: {error}") from error
    if len(data) != count:
        raise ContentError(
            f"{path}: {'more' if len(data) > count else len(data)} bytes of values; expected {count}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _labelled(images: Path, labels: Path, request: Request) -> Labelled:
    x, y = read_idx(images), read_idx(labels)
    if not x.size:
        raise ContentError(f"{images}: no image in it, {x.shape}; expected at least one")
    if x.ndim not in (3, 4) or y.ndim != 1 or len(x) != len(y):
        raise ContentError(
            f"{images}: shape {x.shape} with labels {y.shape}; expected (n, height, width) and (n,)"
        )
    pictures = x[..., None] if x.ndim == 3 else x
    return Labelled(fit_images(pictures, 255, request), check_labels(y.astype(np.int64), request))


def _found(folder: Path, name: str) -> Path:
    found = _optional(folder, name)
    if found is None:
        raise ContentError(f"{folder}: there is no {name} nor {name}.gz")
    return found


def _optional(folder: Path, name: str) -> Path | None:
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    return next((folder / one for one in names if (folder / one).is_file()), None)
