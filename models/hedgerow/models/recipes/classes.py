"""What classifiers share: labelled examples in, accuracy and agreement out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hedgerow.models.recipe import Array, Floats, Predict, PublicSet
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import TensorSpec

Ints = npt.NDArray[np.int64]


def labelled(
    samples: Sequence[Array] | Array, labels: Sequence[int | None], classes: int, spec: TensorSpec
) -> tuple[Array, Ints]:
    """Return the samples that have a label, ``(k, *spec.shape)``, with their labels int64 ``(k,)``.

    Raises ContentError if there is none, a label lies outside 0..classes − 1, or samples are not of ``spec``.
    """
    if len(samples) != len(labels):
        raise ContentError(f"{len(samples)} samples with {len(labels)} labels")
    kept = [n for n, label in enumerate(labels) if label is not None]
    if not kept:
        raise ContentError("no labelled example to train on")
    y = np.array([labels[n] for n in kept], np.int64)
    if y.min() < 0 or y.max() >= classes:
        raise ContentError(f"labels from {y.min()} to {y.max()}; classes go from 0 to {classes - 1}")
    found = samples[kept] if isinstance(samples, np.ndarray) else np.stack([samples[n] for n in kept])
    spec.check(found)
    return found, y


def accuracy(predict: Predict, public: PublicSet) -> float:
    """Return the share of right answers on the public examples that are neither calibration nor golden.

    Raises ContentError if the set has no labels, or nothing is left of it.
    """
    if public.y is None:
        raise ContentError("the public set has no labels")
    rest = np.setdiff1d(np.arange(len(public.x)), np.concatenate([public.calibration, public.golden]))
    if not len(rest):
        raise ContentError("no public example is left to score on")
    return float((predict(public.x[rest]).argmax(axis=1) == public.y[rest]).mean())


def same_class(reference: Floats, candidate: Floats) -> float:
    """Return the share of examples for which both outputs ``(n, classes)`` name the same class."""
    return float((reference.argmax(axis=1) == candidate.argmax(axis=1)).mean())
