"""scikit-learn's small tables: iris, wine, breast cancer, digits; columns standardised, a part held out."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from hedgerow.simulations.population.pool import Labelled, Pool, Request, split_off, ungrouped
from hedgerow.simulations.population.sources.held import DEFAULT_SHARE, Share, standardised
from hedgerow.simulations.population.sources.shapes import check_labels, fit_vectors


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``set`` names the table; ``held_out`` is the share kept for the central evaluation."""

    set: Literal["iris", "wine", "breast_cancer", "digits"] = "iris"
    held_out: Share = DEFAULT_SHARE


def read(request: Request) -> Pool:
    """Return the table's rows as vectors."""
    # Slow to import.
    from sklearn import datasets

    options: Options = request.options
    found = getattr(datasets, f"load_{options.set}")()
    values = np.asarray(found.data, np.float64)
    scaled = values / 16.0 if options.set == "digits" else standardised(values)
    labels = check_labels(np.asarray(found.target, np.int64), request)
    rest, held = split_off(
        Labelled(fit_vectors(scaled.astype(np.float32), request), labels), options.held_out, request.seed
    )
    return ungrouped(rest.samples, rest.labels, held)
