"""Fitting what a source has to what a recipe's devices store: images as bytes of the recipe's brightness, or vectors."""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.models.recipe import Array, Floats
from hedgerow.simulations.population.pool import Ints, Request

_BRIGHTNESS: Final = re.compile(r"unit-brightness-([0-9]+)-v1")
Bytes = npt.NDArray[np.uint8]


def fit_images(images: Bytes, white: int, request: Request) -> Array:
    """Return images uint8 ``(n, height, width, channels)``, 0 to ``white``, as ``request.spec`` wants them.

    An image recipe gets bytes of its own brightness, a vector recipe float32 in 0..1. Raises ConfigError if the sizes differ.
    """
    spec, shape = request.spec, images.shape[1:]
    if spec.dtype == "float32" and len(spec.shape) == 1:
        if spec.elements != math.prod(shape):
            raise request.wrong("source", _sizes(shape, spec.shape, "inputs"))
        vectors = images.reshape(len(images), -1).astype(np.float32)
        return np.asarray(vectors / np.float32(white))
    if spec.dtype != "uint8" or spec.kind != "image":
        raise request.wrong("source", f"gives images; recipe {request.recipe.name!r} takes {spec.kind} data")
    if spec.shape != shape:
        raise request.wrong("source", _sizes(shape, spec.shape, "height, width and channels"))
    found = _BRIGHTNESS.fullmatch(request.recipe.feature_set(request.parameters))
    brightest = int(found.group(1)) if found else white
    if brightest == white:
        return images
    return np.asarray(np.rint(images.astype(np.float32) * np.float32(brightest / white)), np.uint8)


def fit_vectors(vectors: Floats, request: Request) -> Floats:
    """Return vectors ``(n, k)`` as float32 of ``request.spec``. Raises ConfigError if the recipe takes something else."""
    spec = request.spec
    if spec.dtype != "float32" or len(spec.shape) != 1:
        raise request.wrong("source", f"gives vectors; recipe {request.recipe.name!r} takes {spec.kind} data")
    if vectors.shape[1:] != spec.shape:
        raise request.wrong("source", _sizes(vectors.shape[1:], spec.shape, "inputs"))
    return np.ascontiguousarray(vectors, np.float32)


def check_labels(labels: Ints, request: Request) -> Ints:
    """Return ``labels``. Raises ConfigError if the recipe has no classes, or fewer than there are."""
    classes = request.classes
    if not classes:
        raise request.wrong("source", f"has labels; recipe {request.recipe.name!r} takes no classes")
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise request.wrong(
            "source",
            f"has labels from {labels.min()} to {labels.max()}; the recipe has {classes} classes: set "
            "job.parameters.classes",
        )
    return labels


def _sizes(have: tuple[int, ...], want: tuple[int, ...], keys: str) -> str:
    def written(shape: tuple[int, ...]) -> str:
        return " by ".join(map(str, shape))

    return (
        f"gives examples of {written(have)}, the recipe takes {written(want)}: set {keys} in job.parameters"
    )
