"""Reading one picture: PGM and PPM without any library, PNG and JPEG with Pillow where it is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError, UnsupportedError

NETPBM: Final = frozenset({".pgm", ".ppm"})
PILLOW: Final = frozenset({".png", ".jpg", ".jpeg"})
_HEAD: Final = re.compile(rb"(P[56])\s+(?:#[^\n]*\n\s*)*(\d{1,7})\s+(?:#[^\n]*\n\s*)*(\d{1,7})\s+(\d{1,5})\s")
_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""
Bytes = npt.NDArray[np.uint8]


def read_picture(path: Path, channels: int) -> Bytes:
    """Return a picture, uint8 ``(height, width, channels)``, grey for one channel, red, green and blue for three.

    Raises ContentError if it is damaged or too large, UnsupportedError if reading it needs Pillow.
    """
    if channels not in (1, 3):
        raise UnsupportedError(f"pictures have one or three channels, not {channels}")
    try:
        size = path.stat().st_size
        if size > limits.MAX_TENSOR_ELEMENTS + limits.KIB:
            raise ContentError(f"{path}: {size} bytes; at most {limits.MAX_TENSOR_ELEMENTS}")
        if path.suffix.lower() in NETPBM:
            return _channels(_netpbm(path.read_bytes(), path), channels)
        return _pillow(path, channels)
    except OSError as error:
        raise ContentError(f"{path}: cannot be read: {error.strerror or error}") from error


def _netpbm(data: bytes, path: Path) -> Bytes:
    """Return binary PGM (P5) or PPM (P6), uint8 ``(height, width, 1 or 3)``."""
    head = _HEAD.match(data)
    if head is None:
        raise ContentError(f"{path}: not a binary PGM or PPM picture (P5 or P6)")
    width, height, white = (int(head.group(n)) for n in (2, 3, 4))
    depth = 1 if head.group(1) == b"P5" else 3
    if not 1 <= white <= 255 or not width or not height:
        raise ContentError(f"{path}: {width} by {height} of brightness up to {white}; expected at most 255")
    values = data[head.end() :]
    if len(values) != width * height * depth:
        raise ContentError(f"{path}: {len(values)} bytes of pixels; expected {width * height * depth}")
    pixels = np.frombuffer(values, np.uint8).reshape(height, width, depth)
    if pixels.max() > white:
        raise ContentError(f"{path}: a pixel of {pixels.max()} where white is {white}")
    if white == 255:
        return pixels
    return np.rint(pixels.astype(np.float64) * 255 / white).astype(np.uint8)


def _channels(pixels: Bytes, channels: int) -> Bytes:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 1:
        return np.asarray(np.rint(pixels @ _LUMA), np.uint8)[:, :, None]
    return np.repeat(pixels, 3, axis=2)


def _pillow(path: Path, channels: int) -> Bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise UnsupportedError(
            f"{path}: reading {path.suffix} needs Pillow (pip install pillow); PGM and PPM are read without"
        ) from error
    try:
        with Image.open(path) as image:
            if image.width * image.height * 3 > limits.MAX_TENSOR_ELEMENTS:
                raise ContentError(f"{path}: {image.width} by {image.height}; too large")
            if image.mode[:1] in "IF":
                # Pillow would cut what is above 255 off: a picture of sixteen bits would come out white.
                raise ContentError(
                    f"{path}: more than eight bits a channel ({image.mode}); expected at most 255"
                )
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ContentError(f"{path}: not a sound picture: {error}") from error
    return pixels[:, :, None] if channels == 1 else pixels
