"""Folders of pictures: a folder a class, or a folder a device with one a class in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from hedgerow.shared.errors import ContentError
from hedgerow.simulations.population.pool import Labelled, Pool, Request, split_off
from hedgerow.simulations.population.sources.held import DEFAULT_SHARE, Share, printable
from hedgerow.simulations.population.sources.pixels import NETPBM, PILLOW, read_picture
from hedgerow.simulations.population.sources.shapes import check_labels, fit_images

MAX_PICTURES: Final = 1_000_000


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``layout`` is ``class`` (``path/cat/1.png``) or ``device-class`` (``path/truck-7/cat/1.png``: folders are groups).

    Classes are numbered in the order of their names. ``held_out`` is the share kept for the central evaluation.
    """

    layout: Literal["class", "device-class"] = "class"
    held_out: Share = DEFAULT_SHARE


class _Found(NamedTuple):
    path: Path
    group: str
    label: str


def read(request: Request) -> Pool:
    """Return the pictures. All must have the size that the recipe takes: they are not scaled.

    Raises ContentError for a damaged picture or one of another size, UnsupportedError for PNG or JPEG without Pillow,
    ConfigError for an empty folder.
    """
    spec, options = request.spec, request.options
    if len(spec.shape) != 3:
        raise request.wrong(
            "source", f"gives pictures; recipe {request.recipe.name!r} takes {spec.kind} data"
        )
    found = _pictures(request)
    names = sorted({one.label for one in found})
    labels = check_labels(np.array([names.index(one.label) for one in found], np.int64), request)
    pixels = np.empty((len(found), *spec.shape), np.uint8)
    for n, one in enumerate(found):
        picture = read_picture(one.path, spec.shape[2])
        if picture.shape != spec.shape:
            height, width = picture.shape[:2]
            raise ContentError(
                f"{one.path}: {height} high, {width} wide; the recipe takes {spec.shape[0]} by {spec.shape[1]}: scale "
                "the pictures, or set job.parameters.height and width"
            )
        pixels[n] = picture
    group_names = sorted({one.group for one in found} - {""})
    groups = np.array([group_names.index(one.group) if one.group else -1 for one in found], np.int64)
    index = Labelled(np.arange(len(found)), None)
    kept, held = (
        np.asarray(part.samples, np.int64) for part in split_off(index, options.held_out, request.seed)
    )
    examples = Labelled(fit_images(pixels, 255, request), labels)
    names_told = tuple(printable(name) for name in group_names)
    return Pool(examples.take(kept), groups[kept], names_told, examples.take(held))


def _pictures(request: Request) -> list[_Found]:
    folder, layout = request.folder, request.options.layout
    pattern = "*/*" if layout == "class" else "*/*/*"
    found = []
    for path in sorted(folder.glob(pattern)):
        if path.suffix.lower() in NETPBM | PILLOW and path.is_file():
            group = "" if layout == "class" else path.parent.parent.name
            found.append(_Found(path, group, path.parent.name))
        if len(found) > MAX_PICTURES:
            raise request.wrong("path", f"more than {MAX_PICTURES} pictures in {folder}")
    if len(found) < 2:
        raise request.wrong(
            "path", f"{len(found)} pictures ({', '.join(sorted(NETPBM | PILLOW))}) as {folder}/{pattern}"
        )
    return found
