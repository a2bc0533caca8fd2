"""The digit classifier: a small convolutional network on scikit-learn's real handwritten digits, 8 by 8 pixels.

The 1,797 digits of the UCI test set that scikit-learn ships are split once: a fifth is public (calibration, golden
samples, the server's score), the rest is what a fleet's devices may hold (``device_split``).
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from hedgerow.models.recipe import Array, Floats, GateDefaults, Parameters, PublicSet, TrainingSet
from hedgerow.models.recipes.classes import Classifier, labelled
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    import torch

    from hedgerow.shared.profile import DeviceProfile

CLASSES: Final = 10
SHAPE: Final = (8, 8, 1)
BRIGHTEST: Final = 16
PUBLIC_EVERY: Final = 5
CALIBRATION: Final = 100
GOLDEN: Final = 4
SPLIT_SEED: Final = 20
MIN_PER_DEVICE: Final = 20


class DigitsParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may choose: filters of the two convolutions and the width of the layer after them."""

    filters: Annotated[int, Meta(ge=2, le=64)] = 20
    width: Annotated[int, Meta(ge=4, le=256)] = 48


@dataclass(frozen=True)
class Digits:
    """Images uint8 ``(n, 8, 8, 1)``, 0 to 16, with their digits int64 ``(n,)``."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def take(self, indices: npt.NDArray[np.int64]) -> Digits:
        """Return some of them."""
        return Digits(self.images[indices], self.labels[indices])


class DigitsCnn(Classifier[DigitsParameters]):
    """The recipe ``digits-cnn``."""

    name = "digits-cnn"
    version = "1"
    parameters = DigitsParameters
    gate = GateDefaults(
        min_agreement=0.97, max_metric_drop=0.02, max_latency_us=20_000, max_artefact_bytes=limits.MIB
    )

    def classes(self, parameters: Parameters) -> int:  # noqa: ARG002
        """Return ten."""
        return CLASSES

    def input_spec(self, parameters: Parameters) -> TensorSpec:  # noqa: ARG002
        """Return the image that a device stores: uint8 ``(8, 8, 1)``, 0 to 16."""
        return TensorSpec("digit", "uint8", SHAPE, "image")

    def feature_set(self, parameters: Parameters) -> str:  # noqa: ARG002
        """Return the id of the transform: brightness over 16."""
        return "unit-brightness-16-v1"

    def build(self, parameters: Parameters) -> torch.nn.Module:
        """Return the untrained network, float32 ``(n, 8, 8, 1)`` to logits ``(n, 10)``."""
        from torch import nn

        read = self.read(parameters)
        return nn.Sequential(
            nn.Flatten(),
            nn.Unflatten(1, (1, 8, 8)),  # one channel: the same bytes in either layout
            nn.Conv2d(1, read.filters, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(read.filters, 2 * read.filters, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * read.filters * 16, read.width),
            nn.ReLU(),
            nn.Linear(read.width, CLASSES),
        )

    def training_set(
        self,
        samples: Sequence[Array] | Array,
        labels: Sequence[int | None],
        profile: DeviceProfile | None,  # noqa: ARG002
        parameters: Parameters,
        private: bool,  # noqa: ARG002
    ) -> TrainingSet:
        """Return the labelled images, brightness over 16: each depends on itself alone, private or not.

        Raises ContentError without a labelled image, for a label out of range, another shape or another dtype.
        """
        images, y = labelled(samples, labels, CLASSES, self.input_spec(parameters))
        return TrainingSet(to_input(images), y)

    def public_set(self, parameters: Parameters) -> PublicSet:  # noqa: ARG002
        """Return the held-out fifth; no device of ``device_split`` holds any of it."""
        public, _ = _split()
        order = np.random.default_rng(7).permutation(len(public.labels)).astype(np.int64)
        golden, calibration = order[:GOLDEN], order[GOLDEN : GOLDEN + CALIBRATION]
        return PublicSet(to_input(public.images), public.labels, calibration, golden)


def to_input(images: npt.NDArray[np.generic]) -> Floats:
    """Return uint8 images ``(n, 8, 8, 1)`` as the network takes them: float32, 0 to 1."""
    return images.astype(np.float32) / np.float32(BRIGHTEST)


def device_split(n_devices: int, alpha: float, seed: int) -> list[Digits]:
    """Return one non-IID share of the digits per device; shares are disjoint and leave out the public set.

    Each digit's images are divided by a Dirichlet draw (Hsu, Qi and Brown 2019, section 3): a small ``alpha`` gives
    each device few kinds. Draws are repeated until every device has ``MIN_PER_DEVICE`` images.
    Raises ConfigError if that cannot be, or ``n_devices`` or ``alpha`` is not positive.
    """
    _, private = _split()
    if n_devices < 1 or alpha <= 0 or n_devices * MIN_PER_DEVICE > len(private.labels):
        raise ConfigError(
            f"cannot split {len(private.labels)} digits over {n_devices} devices, alpha {alpha}"
        )
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        owner = _draw_owners(private.labels, n_devices, alpha, rng)
        if np.bincount(owner, minlength=n_devices).min() >= MIN_PER_DEVICE:
            return [private.take(np.flatnonzero(owner == device)) for device in range(n_devices)]
    raise ConfigError(f"no split over {n_devices} devices gives each {MIN_PER_DEVICE} digits; raise alpha")


def _draw_owners(
    labels: npt.NDArray[np.int64], n_devices: int, alpha: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    owner = np.empty(len(labels), np.int64)
    for digit in range(CLASSES):
        mine = rng.permutation(np.flatnonzero(labels == digit))
        cuts = (np.cumsum(rng.dirichlet([alpha] * n_devices))[:-1] * len(mine)).astype(np.int64)
        for device, part in enumerate(np.split(mine, cuts)):
            owner[part] = device
    return owner


def _split() -> tuple[Digits, Digits]:
    pixels, target = _scikit_learns()
    images = pixels.astype(np.uint8).reshape(-1, *SHAPE)
    digits = Digits(images, target.astype(np.int64))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images)).astype(np.int64)
    public = np.arange(len(images)) % PUBLIC_EVERY == 0
    return digits.take(np.sort(order[public])), digits.take(np.sort(order[~public]))


def _scikit_learns() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return pixels ``(1797, 64)`` and classes ``(1797,)`` of scikit-learn's digits.

    They are read from its file where that lies as it always did: importing scikit-learn takes longer than all the rest of a
    small simulation's start.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data, found.target


RECIPE: Final = DigitsCnn()
