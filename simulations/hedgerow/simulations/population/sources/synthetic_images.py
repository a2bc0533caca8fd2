"""Synthetic images of the recipe's shape and classes (``hedgerow.models.synthetic.images``), from the scenario's seed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from hedgerow.models.recipes.image_cnn import PUBLIC, PUBLIC_SEED
from hedgerow.models.synthetic.images import WHITE, ImageKind, make_images
from hedgerow.simulations.population.pool import Labelled, Pool, Request
from hedgerow.simulations.population.sources.shapes import fit_images

DEFAULT = ImageKind()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``samples`` over all devices; ``groups`` see differently (turn, contrast, brightness); ``noise`` of a pixel and
    ``clutter`` behind, white being 1.
    """

    samples: Annotated[int, Meta(ge=1, le=2_000_000)] = 10_000
    groups: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    noise: Annotated[float, Meta(ge=0, le=1)] = DEFAULT.noise
    clutter: Annotated[float, Meta(ge=0, le=1)] = DEFAULT.clutter


def read(request: Request) -> Pool:
    """Return images for devices; held out are as many of the same task as the recipe's public set has."""
    spec, options = request.spec, request.options
    if len(spec.shape) != 3 or not request.classes:
        raise request.wrong(
            "source", f"gives images with classes; recipe {request.recipe.name!r} takes others"
        )
    height, width, channels = spec.shape
    kind = ImageKind(height, width, channels, request.classes, options.noise, options.clutter)
    made = make_images(kind, options.samples, request.seed % PUBLIC_SEED, options.groups)
    held = make_images(kind, PUBLIC, PUBLIC_SEED)
    names = tuple(f"group-{n}" for n in range(options.groups)) if options.groups > 1 else ()
    groups = made.groups if names else made.groups - 1
    return Pool(
        Labelled(fit_images(made.pixels, WHITE, request), made.labels),
        groups,
        names,
        Labelled(fit_images(held.pixels, WHITE, request), held.labels),
    )
