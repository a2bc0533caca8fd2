"""What a bundle's model means: from raw sample to model input, and from model output to an answer."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.fitted_file import FittedFile
from hedgerow.edge_agent.inference.prediction import Answer, ClassScore
from hedgerow.shared.bundle import Manifest
from hedgerow.shared.errors import ContentError
from hedgerow.shared.features import image_transform
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import Fitted, Scorer
from hedgerow.shared.scoring.values import Predict

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


class Task(Protocol):
    """One bundle's task on one device."""

    @property
    def ready(self) -> bool:
        """Whether it can answer; an anomaly task must be fitted first."""

    def fit(self, samples: Array, predict: Predict) -> None:
        """Fit on raw normal samples ``(n, *shape)``. Raises ContentError if they are too few or not usable."""

    def prepare(self, sample: Array) -> Floats:
        """Return model input ``(1, *shape)`` for one raw sample."""

    def answer(self, sample: Array, output: Floats, live: bool) -> Answer:
        """Return the answer. ``live`` samples come in order of time and may move what counts as normal.

        Raises ContentError if the output means nothing.
        """

    def keep(self) -> None:
        """Keep on disk what live samples have moved."""


class AnomalyTask:
    """Scores windows by the bundle's rule, with values fitted on this device."""

    def __init__(self, manifest: Manifest, profile: DeviceProfile, file: FittedFile[Fitted]) -> None:
        if manifest.scoring is None:
            raise ContentError("an anomaly bundle without a scoring rule")
        if manifest.channels and manifest.channels != profile.channels:
            raise ContentError(
                f"the bundle is for channels {', '.join(manifest.channels)}; profile {profile.name!r} has "
                f"{', '.join(profile.channels)}"
            )
        self._scorer = Scorer(manifest.scoring, profile)
        self._file = file
        self._fitted = file.read()
        self._moved = False

    @property
    def ready(self) -> bool:
        """Whether the scorer is fitted."""
        return self._fitted is not None

    def fit(self, samples: Array, predict: Predict) -> None:
        """Fit the scorer and keep the result; see ``Task``."""
        self._fitted = self._scorer.fit(samples, predict)
        self._file.write(self._fitted)

    def prepare(self, sample: Array) -> Floats:
        """Return the scaled window."""
        return self._scorer.transform(sample[None], self._fitted)

    def answer(self, sample: Array, output: Floats, live: bool) -> Answer:
        """Return score, threshold, alarm and attribution; see ``Task``."""
        if self._fitted is None:
            raise ContentError("not fitted on this device yet")
        found, following = self._scorer.judge(sample, output[0], self._fitted)
        if live and following is not self._fitted:
            self._fitted, self._moved = following, True
        return Answer(found.value, found.threshold, found.alarm, found.attribution)

    def keep(self) -> None:
        """Keep what is normal now; see ``Task``."""
        if self._moved and self._fitted is not None:
            self._file.write(self._fitted)
            self._moved = False


class ClassificationTask:
    """Names the class of an image."""

    ready = True

    def __init__(self, manifest: Manifest) -> None:
        classes = manifest.output.elements
        if manifest.labels and len(manifest.labels) != classes:
            raise ContentError(f"{len(manifest.labels)} labels for {classes} classes")
        self._labels = manifest.labels or tuple(str(index) for index in range(classes))
        self._transform = image_transform(manifest.lineage.feature_set)

    def fit(self, samples: Array, predict: Predict) -> None:
        """Nothing is fitted on the device."""

    def prepare(self, sample: Array) -> Floats:
        """Return the image as the model takes it."""
        return self._transform(sample[None])

    def answer(self, sample: Array, output: Floats, live: bool) -> Answer:  # noqa: ARG002
        """Return the classes with their probabilities (softmax), likeliest first."""
        logits = output.reshape(-1).astype(np.float64)
        exponents = np.exp(logits - logits.max())
        likely = exponents / exponents.sum()
        order = np.argsort(-logits, kind="stable")
        return Answer(classes=tuple(ClassScore(int(n), self._labels[n], float(likely[n])) for n in order))

    def keep(self) -> None:
        """Nothing moves."""


def make_task(manifest: Manifest, profile: DeviceProfile, file: FittedFile[Fitted]) -> Task:
    """Return the bundle's task. Raises ContentError, ConfigError or UnsupportedError if it does not fit this device."""
    if manifest.task == "anomaly":
        return AnomalyTask(manifest, profile, file)
    return ClassificationTask(manifest)
