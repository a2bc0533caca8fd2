"""The vector classifier: dense layers and ReLU over one vector of numbers about 0 to 1.

With the defaults (64 inputs, 32 hidden, 10 classes: 2,410 parameters) its public set is scikit-learn's handwritten digits
as vectors, the same public fifth as the recipe ``digits-cnn``; with other sizes it is synthetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from hedgerow.models.recipe import Array, GateDefaults, Parameters, PublicSet, TrainingSet
from hedgerow.models.recipes.classes import Classifier, labelled
from hedgerow.models.synthetic.vectors import VectorKind, make_vectors
from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    import torch

    from hedgerow.shared.profile import DeviceProfile

PUBLIC: Final = 1000
PUBLIC_SEED: Final = 1_000_000
"""Public vectors come from this seed; those of simulated devices from smaller ones."""
CALIBRATION: Final = 100
GOLDEN: Final = 4
Width = Annotated[int, Meta(ge=1, le=4096)]


class MlpParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may choose: the vector's length, the classes, and the widths of the hidden layers (none: linear)."""

    inputs: Annotated[int, Meta(ge=1, le=65536)] = 64
    hidden: Annotated[tuple[Width, ...], Meta(max_length=8)] = (32,)
    classes: Annotated[int, Meta(ge=2, le=1000)] = 10


class Mlp(Classifier[MlpParameters]):
    """The recipe ``mlp``."""

    name = "mlp"
    version = "1"
    parameters = MlpParameters
    gate = GateDefaults(
        min_agreement=0.95, max_metric_drop=0.03, max_latency_us=20_000, max_artefact_bytes=16 * limits.MIB
    )

    def classes(self, parameters: Parameters) -> int:
        """Return how many the job asks for."""
        return self.read(parameters).classes

    def input_spec(self, parameters: Parameters) -> TensorSpec:
        """Return the vector that a device stores: float32 ``(inputs,)``."""
        return TensorSpec("vector", "float32", (self.read(parameters).inputs,), "scores")

    def feature_set(self, parameters: Parameters) -> str:  # noqa: ARG002
        """Return the id of the transform: values as they are."""
        return "unit-brightness-1-v1"

    def build(self, parameters: Parameters) -> torch.nn.Module:
        """Return the untrained network, float32 ``(n, inputs)`` to logits ``(n, classes)``."""
        from torch import nn

        read = self.read(parameters)
        layers: list[nn.Module] = []
        before = read.inputs
        for width in read.hidden:
            layers += [nn.Linear(before, width), nn.ReLU()]
            before = width
        return nn.Sequential(*layers, nn.Linear(before, read.classes))

    def training_set(
        self,
        samples: Sequence[Array] | Array,
        labels: Sequence[int | None],
        profile: DeviceProfile | None,  # noqa: ARG002
        parameters: Parameters,
        private: bool,  # noqa: ARG002
    ) -> TrainingSet:
        """Return the labelled vectors as they are: each depends on itself alone, private or not.

        Raises ContentError without a labelled vector, for a label out of range, another shape, or values not finite.
        """
        read = self.read(parameters)
        vectors, y = labelled(samples, labels, read.classes, self.input_spec(parameters))
        x = np.ascontiguousarray(vectors, np.float32)
        if not np.isfinite(x).all():
            raise ContentError("a vector holds values that are not finite")
        return TrainingSet(x, y)

    def public_set(self, parameters: Parameters) -> PublicSet:
        """Return digits as vectors for the default sizes, synthetic vectors otherwise."""
        read = self.read(parameters)
        if (read.inputs, read.classes) == (64, 10):
            from hedgerow.models.recipes.digits import RECIPE as DIGITS

            images = DIGITS.public_set({})
            return PublicSet(images.x.reshape(-1, 64), images.y, images.calibration, images.golden)
        made = make_vectors(VectorKind(read.inputs, read.classes), PUBLIC, PUBLIC_SEED)
        golden, calibration = np.arange(GOLDEN), np.arange(GOLDEN, GOLDEN + CALIBRATION)
        return PublicSet(made.values, made.labels, calibration, golden)


RECIPE: Final = Mlp()
