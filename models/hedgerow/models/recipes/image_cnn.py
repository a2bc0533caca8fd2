"""The image classifier: two convolutions with pooling, a dense layer, and one logit a class; any small image size.

With the defaults, 28 by 28 in one channel, it has 55,338 parameters. Its public set is synthetic
(``hedgerow.models.synthetic.images``): an own data set of that size is given to a simulation, or lies on devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from hedgerow.models.recipe import Array, GateDefaults, Parameters, PublicSet, TrainingSet
from hedgerow.models.recipes.classes import Classifier, labelled
from hedgerow.models.synthetic.images import WHITE, ImageKind, make_images
from hedgerow.shared import limits
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    import torch

    from hedgerow.shared.profile import DeviceProfile

PUBLIC: Final = 1500
PUBLIC_SEED: Final = 1_000_000
"""Public images come from this seed; those of simulated devices from smaller ones."""
CALIBRATION: Final = 128
GOLDEN: Final = 4
Size = Annotated[int, Meta(ge=8, le=256)]


class ImageParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may choose: the image, the classes, filters of the first convolution (the second has twice as many), and
    the width of the dense layer.
    """

    height: Size = 28
    width: Size = 28
    channels: Annotated[int, Meta(ge=1, le=4)] = 1
    classes: Annotated[int, Meta(ge=2, le=1000)] = 10
    filters: Annotated[int, Meta(ge=1, le=256)] = 16
    dense: Annotated[int, Meta(ge=1, le=4096)] = 32


class ImageCnn(Classifier[ImageParameters]):
    """The recipe ``image-cnn``."""

    name = "image-cnn"
    version = "1"
    parameters = ImageParameters
    gate = GateDefaults(
        min_agreement=0.95, max_metric_drop=0.03, max_latency_us=50_000, max_artefact_bytes=16 * limits.MIB
    )

    def classes(self, parameters: Parameters) -> int:
        """Return how many the job asks for."""
        return self.read(parameters).classes

    def input_spec(self, parameters: Parameters) -> TensorSpec:
        """Return the image that a device stores: uint8 ``(height, width, channels)``, 0 to 255."""
        read = self.read(parameters)
        return TensorSpec("image", "uint8", (read.height, read.width, read.channels), "image")

    def feature_set(self, parameters: Parameters) -> str:  # noqa: ARG002
        """Return the id of the transform: brightness over 255."""
        return f"unit-brightness-{WHITE}-v1"

    def build(self, parameters: Parameters) -> torch.nn.Module:
        """Return the untrained network, float32 ``(n, height, width, channels)`` to logits ``(n, classes)``.

        Pooling comes before ReLU: the two commute exactly, in gradients too, and ReLU then has a quarter of the work (a
        training step of 16 images took 16 % less with channels last).
        """
        from torch import nn

        read = self.read(parameters)
        flat = 2 * read.filters * (read.height // 4) * (read.width // 4)
        return nn.Sequential(
            *_channels_first(read),
            nn.Conv2d(read.channels, read.filters, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(read.filters, 2 * read.filters, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, read.dense),
            nn.ReLU(),
            nn.Linear(read.dense, read.classes),
        )

    def training_set(
        self,
        samples: Sequence[Array] | Array,
        labels: Sequence[int | None],
        profile: DeviceProfile | None,  # noqa: ARG002
        parameters: Parameters,
        private: bool,  # noqa: ARG002
    ) -> TrainingSet:
        """Return the labelled images, brightness over 255: each depends on itself alone, private or not.

        Raises ContentError without a labelled image, for a label out of range, another shape or another dtype.
        """
        read = self.read(parameters)
        images, y = labelled(samples, labels, read.classes, self.input_spec(parameters))
        return TrainingSet(images.astype(np.float32) / np.float32(WHITE), y)

    def public_set(self, parameters: Parameters) -> PublicSet:
        """Return synthetic images of this shape and number of classes."""
        read = self.read(parameters)
        made = make_images(
            ImageKind(read.height, read.width, read.channels, read.classes), PUBLIC, PUBLIC_SEED
        )
        x = made.pixels.astype(np.float32) / np.float32(WHITE)
        golden, calibration = np.arange(GOLDEN), np.arange(GOLDEN, GOLDEN + CALIBRATION)
        return PublicSet(x, made.labels, calibration, golden)


def _permuting() -> torch.nn.Module:
    import torch

    class ChannelsFirst(torch.nn.Module):
        """``(n, height, width, channels)`` to ``(n, channels, height, width)``, a view."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 3, 1, 2)

    return ChannelsFirst()


def _channels_first(read: ImageParameters) -> list[torch.nn.Module]:
    from torch import nn

    if read.channels == 1:  # the same bytes in either layout
        return [nn.Flatten(), nn.Unflatten(1, (1, read.height, read.width))]
    return [_permuting()]


RECIPE: Final = ImageCnn()
