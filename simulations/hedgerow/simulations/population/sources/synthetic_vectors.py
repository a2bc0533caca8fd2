"""Synthetic vectors of the recipe's length and classes (``hedgerow.models.synthetic.vectors``), from the scenario's seed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from hedgerow.models.recipes.mlp import PUBLIC, PUBLIC_SEED
from hedgerow.models.synthetic.vectors import VectorKind, make_vectors
from hedgerow.simulations.population.pool import Labelled, Pool, Request
from hedgerow.simulations.population.sources.shapes import fit_vectors

DEFAULT = VectorKind()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``samples`` over all devices; ``groups`` are moved by own offsets; ``spread`` of a class, its centre's being 1, and
    ``noise`` of an input.
    """

    samples: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    groups: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    spread: Annotated[float, Meta(ge=0, le=10)] = DEFAULT.spread
    noise: Annotated[float, Meta(ge=0, le=1)] = DEFAULT.noise


def read(request: Request) -> Pool:
    """Return vectors for devices; held out are as many of the same task as the recipe's public set has."""
    spec, options = request.spec, request.options
    if len(spec.shape) != 1 or not request.classes:
        raise request.wrong(
            "source", f"gives vectors with classes; recipe {request.recipe.name!r} takes others"
        )
    kind = VectorKind(spec.shape[0], request.classes, options.spread, options.noise)
    made = make_vectors(kind, options.samples, request.seed % PUBLIC_SEED, options.groups)
    held = make_vectors(kind, PUBLIC, PUBLIC_SEED)
    names = tuple(f"group-{n}" for n in range(options.groups)) if options.groups > 1 else ()
    return Pool(
        Labelled(fit_vectors(made.values, request), made.labels),
        made.groups if names else made.groups - 1,
        names,
        Labelled(held.values, held.labels),
    )
