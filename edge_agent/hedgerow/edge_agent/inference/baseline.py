"""The statistical baseline as a link of the chain: fitted once on this device's windows, kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.fitted_file import FittedFile
from hedgerow.edge_agent.inference.prediction import Answer
from hedgerow.shared.errors import ContentError
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import BaselineFitted, StatisticalBaseline

Array = npt.NDArray[np.generic]


class Baseline:
    """Answers for telemetry windows without a model. ``folder`` keeps what was fitted."""

    def __init__(self, profile: DeviceProfile, folder: Path) -> None:
        self._baseline = StatisticalBaseline(profile)
        key = f"{profile.name}/{profile.version}/{','.join(profile.channels)}"
        self._file = FittedFile(folder / "baseline.json", key, BaselineFitted)
        self._fitted = self._file.read()

    @property
    def ready(self) -> bool:
        """Whether it is fitted."""
        return self._fitted is not None

    def fit(self, windows: Array) -> None:
        """Fit on raw normal windows ``(n, rows, channels)``. Raises ContentError if they are too few."""
        self._fitted = self._baseline.fit(windows)
        self._file.write(self._fitted)

    def answer(self, window: Array) -> Answer:
        """Return score, threshold, alarm and attribution. Raises ContentError if it is not fitted yet."""
        if self._fitted is None:
            raise ContentError("not fitted on this device yet")
        found = self._baseline.score(window, self._fitted)
        return Answer(found.value, found.threshold, found.alarm, found.attribution)
