"""What classifiers share: labelled examples in, one logit a class out, cross entropy, accuracy and agreement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.models.recipe import Array, Floats, Parameters, Predict, PublicSet
from hedgerow.models.recipes.parameters import checked
from hedgerow.shared.bundle import ScoringRule
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    import torch

Ints = npt.NDArray[np.int64]
P = TypeVar("P", bound=msgspec.Struct)


class Classifier(ABC, Generic[P]):
    """The part of a recipe that is the same for all classifiers; ``parameters`` is the type of what a job may choose."""

    name: str
    parameters: type[P]
    task: Literal["anomaly", "classification"] = "classification"
    metric = "accuracy"
    higher_is_better = True

    @abstractmethod
    def classes(self, parameters: Parameters) -> int:
        """Return the number of classes."""

    def check(self, parameters: Parameters) -> Parameters:
        """Return the parameters with defaults filled in, as JSON has them. Raises ConfigError naming the key."""
        plain: Parameters = msgspec.json.decode(msgspec.json.encode(self.read(parameters)))
        return plain

    def read(self, parameters: Parameters) -> P:
        """Return the parameters with defaults filled in. Raises ConfigError naming the key."""
        return checked(parameters, self.parameters, self.name)

    def output_spec(self, parameters: Parameters) -> TensorSpec:
        """Return one logit a class."""
        return TensorSpec("logits", "float32", (self.classes(parameters),), "scores")

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        """Return the cross entropy of each example, ``(n,)``. Raises ContentError without labels."""
        from torch.nn import functional

        if y is None:
            raise ContentError(f"{self.name}: classes cannot be learned without labels")
        return functional.cross_entropy(module(x), y, reduction="none")

    def score(self, predict: Predict, public: PublicSet, parameters: Parameters) -> dict[str, float]:  # noqa: ARG002
        """Return the ``accuracy`` on the public examples that are neither calibration nor golden."""
        return {"accuracy": accuracy(predict, public)}

    def agreement(self, reference: Floats, candidate: Floats) -> float:
        """Return the share of examples for which both outputs ``(n, classes)`` name the same class."""
        return float((reference.argmax(axis=1) == candidate.argmax(axis=1)).mean())

    def scoring(self, parameters: Parameters) -> ScoringRule | None:  # noqa: ARG002
        """Return None: a class is the answer, no score is fitted on the device."""
        return None

    def labels(self, parameters: Parameters) -> tuple[str, ...]:
        """Return the classes' numbers."""
        return tuple(str(index) for index in range(self.classes(parameters)))


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
