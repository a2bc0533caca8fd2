"""Synthetic images: each class is one smooth random pattern, seen through a random camera, over a random background.

A pattern is a sum of slow waves, drawn once per class. An image shows its class's pattern shifted, turned, scaled and
dimmed, adds a weaker smooth pattern of its own and pixel noise, and rounds to 8 bits, as a camera does. A group (a
camera, a writer) adds an own turn, contrast and brightness to all its images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

WHITE: Final = 255
FINE: Final = 128
"""Patterns are tabled on ``FINE`` by ``FINE`` points and looked up at the nearest: a quarter of a pixel at 28 by 28."""
VISIBLE: Final = 0.6
"""The share of a pattern's period that an image shows before it is shifted and scaled."""
SLOWEST: Final = 3
"""Waves of a pattern: at most so many periods along each axis."""
BLOCK: Final = 1024
PATTERN_SEED: Final = 28
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageKind:
    """Shape and difficulty. ``noise`` is a pixel's standard deviation, ``clutter`` the background's, white being 1."""

    height: int = 28
    width: int = 28
    channels: int = 1
    classes: int = 10
    noise: float = 0.1
    clutter: float = 0.1


@dataclass(frozen=True)
class Images:
    """``pixels`` uint8 ``(n, height, width, channels)``, 0 to 255; ``labels`` and ``groups`` int64 ``(n,)``."""

    pixels: Bytes
    labels: Ints
    groups: Ints


def make_images(kind: ImageKind, samples: int, seed: int, groups: int = 1) -> Images:
    """Return ``samples`` images of uniformly drawn classes and groups.

    The patterns are the same for every ``seed``, so that sets of different seeds are one task. Memory beyond the result
    does not grow with ``samples``.
    """
    patterns = _patterns(kind.classes, kind.channels)
    rng = np.random.default_rng([seed, 1])
    labels, group = rng.integers(kind.classes, size=samples), rng.integers(groups, size=samples)
    styles = _styles(groups, seed)
    pixels = np.empty((samples, kind.height, kind.width, kind.channels), np.uint8)
    for start in range(0, samples, BLOCK):
        part = slice(start, min(start + BLOCK, samples))
        block_rng = np.random.default_rng([seed, 2, start])
        pixels[part] = _block(kind, patterns, labels[part], styles[group[part]], block_rng)
    return Images(pixels, labels, group)


def _patterns(count: int, channels: int) -> Floats:
    """Return smooth periodic fields of unit variance, ``(count, channels, FINE · FINE)``: the same for all sets."""
    rng = np.random.default_rng([PATTERN_SEED, 0])
    return _fields(count * channels, FINE, rng).reshape(count, channels, FINE * FINE)


def _fields(count: int, size: int, rng: np.random.Generator) -> Floats:
    """Return ``count`` sums of slow waves with mean 0 and variance 1 over a period, ``(count, size, size)``."""
    turns = np.arange(-SLOWEST, SLOWEST + 1)
    angle = 2 * np.pi * np.outer(turns, np.arange(size)) / size
    waves = np.exp(1j * angle)
    strength = rng.standard_normal((count, len(turns), len(turns), 2)) @ np.array([1, 1j])
    strength[:, SLOWEST, SLOWEST] = 0
    fields = np.einsum("cij,iy,jx->cyx", strength, waves, waves, optimize=True).real
    return np.asarray(fields / fields.std(axis=(1, 2), keepdims=True), np.float32)


def _styles(groups: int, seed: int) -> Floats:
    """Return turn (rad), contrast and brightness of each group, ``(groups, 3)``; one group alone is neutral."""
    if groups == 1:
        return np.array([[0.0, 1.0, 0.0]], np.float32)
    rng = np.random.default_rng([seed, 0])
    made = np.stack(
        [rng.normal(0, 0.25, groups), rng.uniform(0.6, 1.4, groups), rng.normal(0, 0.1, groups)], 1
    )
    return made.astype(np.float32)


def _block(kind: ImageKind, patterns: Floats, labels: Ints, style: Floats, rng: np.random.Generator) -> Bytes:
    n = len(labels)
    where = _looked_at(kind, style[:, 0], rng)
    contrast = 0.18 * rng.uniform(0.6, 1.2, (n, 1, 1)).astype(np.float32) * style[:, 1, None, None]
    clutter = _fields(32, FINE, rng).reshape(32, FINE * FINE)
    behind = _looked_at(kind, np.zeros(n, np.float32), rng)
    scene = clutter[rng.integers(32, size=n)[:, None], behind] * np.float32(kind.clutter)
    image = np.empty((n, kind.height * kind.width, kind.channels), np.float32)
    for channel in range(kind.channels):
        image[:, :, channel] = patterns[labels[:, None], channel, where]
    image *= contrast
    image += scene[:, :, None] + np.float32(0.5) + style[:, 2, None, None]
    image += np.float32(kind.noise) * rng.standard_normal(image.shape, np.float32)
    np.clip(image, 0, 1, out=image)
    rounded = np.rint(image * np.float32(WHITE)).astype(np.uint8)
    return np.asarray(rounded.reshape(n, kind.height, kind.width, kind.channels))


def _looked_at(kind: ImageKind, turn: Floats, rng: np.random.Generator) -> Ints:
    """Return the table's index for every pixel of every image, ``(n, height · width)``: shifted, turned, scaled."""
    n = len(turn)
    angle = turn + rng.uniform(-0.3, 0.3, n).astype(np.float32)
    scale = VISIBLE * rng.uniform(0.8, 1.25, n).astype(np.float32)
    shift = rng.uniform(-0.1, 0.1, (2, n, 1)).astype(np.float32)
    y, x = np.meshgrid(_centred(kind.height), _centred(kind.width), indexing="ij")
    cos, sin = (scale * np.cos(angle))[:, None], (scale * np.sin(angle))[:, None]
    row = _nearest(cos * y.ravel() - sin * x.ravel() + shift[0])
    column = _nearest(sin * y.ravel() + cos * x.ravel() + shift[1])
    return row * FINE + column


def _nearest(place: Floats) -> Ints:
    return np.asarray(np.floor(place * FINE).astype(np.int64) % FINE)


def _centred(size: int) -> Floats:
    return ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)) - np.float32(0.5)
