"""scikit-learn's handwritten digits: 1,437 images of 8 by 8 pixels for devices; the other fifth is public."""

from __future__ import annotations

import msgspec

from hedgerow.models.recipes.digits import BRIGHTEST, device_split
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.simulations.population.pool import Labelled, Pool, Request, ungrouped
from hedgerow.simulations.population.sources.shapes import check_labels, fit_images


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The source ``digits`` has no options."""


def read(request: Request) -> Pool:
    """Return the digits that are not public, as images or vectors; held out are the public ones."""
    (private,) = device_split(1, 1.0, 0)
    public = DIGITS.public_set({})
    labels = check_labels(private.labels, request)
    samples = fit_images(private.images, BRIGHTEST, request)
    if request.recipe.name in ("digits-cnn", "mlp"):
        return ungrouped(samples, labels)
    pixels = (public.x * BRIGHTEST).astype(private.images.dtype)
    return ungrouped(samples, labels, Labelled(fit_images(pixels, BRIGHTEST, request), public.y))
