"""The chain of one tensor spec: champion, previous, baseline, unknown. A value: a switch makes a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.baseline import Baseline
from hedgerow.edge_agent.inference.prediction import Answer, Reason, Source
from hedgerow.edge_agent.inference.served import Served
from hedgerow.shared.errors import ContentError

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Outcome:
    """Which link answered, with what, and why those before it did not."""

    reason: Reason
    source: Source
    answer: Answer
    detail: str


@dataclass(frozen=True)
class Chain:
    """Who may answer, in order."""

    champion: Served | None = None
    previous: Served | None = None
    baseline: Baseline | None = None

    def answer(self, sample: Array, live: bool) -> Outcome:
        """Return the first answer that a link can give; the last link always can. Raises RetiredError."""
        passed: list[str] = []
        for reason, link in (("champion", self.champion), ("previous", self.previous)):
            if link is None:
                continue
            if not link.ready:
                passed.append(f"{reason}: not fitted on this device yet")
                continue
            try:
                return Outcome(
                    cast("Reason", reason), link.source, link.answer(sample, live), "; ".join(passed)
                )
            except ContentError as error:
                passed.append(f"{reason}: {error}")
        if self.baseline is not None:
            try:
                return Outcome("baseline", Source(), self.baseline.answer(sample), "; ".join(passed))
            except ContentError as error:
                passed.append(f"baseline: {error}")
        return Outcome(
            "unknown", Source(), Answer(), "; ".join(passed) or "no model and no baseline for this tensor"
        )

    @property
    def unfitted(self) -> bool:
        """Whether some link waits to be fitted."""
        links = (self.champion, self.previous, self.baseline)
        return any(link is not None and not link.ready for link in links)
