"""When an anomaly becomes an alarm and when it is over: decided from predictions, one event each, nothing twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hedgerow.edge_agent.inference.prediction import Prediction
from hedgerow.shared.messages import Alarm, AlarmCleared, EventBody, Severity
from hedgerow.shared.specs import Sample

QUIET_WINDOWS: Final = 3
"""Windows below the threshold in a row after which an alarm is over."""
_BASELINE: Final = "statistical-baseline"


@dataclass
class _Raised:
    since_us: int
    told: set[str] = field(default_factory=set)
    quiet: int = 0


class AlarmTracker:
    """Follows each spec's predictions.

    An alarm is told at its first window, once more by each other model that sees it too, and again after it was over.
    """

    def __init__(self, quiet_windows: int = QUIET_WINDOWS) -> None:
        self._quiet_windows = quiet_windows
        self._raised: dict[str, _Raised] = {}

    def active(self) -> tuple[str, ...]:
        """Return the specs with an alarm that is not over."""
        return tuple(sorted(self._raised))

    def follow(self, sample: Sample, prediction: Prediction) -> tuple[Severity, EventBody] | None:
        """Return what to tell about this window, None for nothing new."""
        raised = self._raised.get(sample.spec)
        if prediction.answer.alarm:
            if raised is None:
                raised = self._raised[sample.spec] = _Raised(sample.start_us)
            raised.quiet = 0
            # Once per model: where two of them take turns, they must not flood the server.
            if prediction.source.bundle in raised.told:
                return None
            raised.told.add(prediction.source.bundle)
            return "critical", _alarm(sample, prediction)
        if raised is None or prediction.answer.score is None:
            return None
        raised.quiet += 1
        if raised.quiet < self._quiet_windows:
            return None
        del self._raised[sample.spec]
        lasted_s = (sample.end_us - raised.since_us) / 1e6
        return "info", AlarmCleared(prediction.source.model, sample.end_us, lasted_s)


def _alarm(sample: Sample, prediction: Prediction) -> Alarm:
    source, answer = prediction.source, prediction.answer
    return Alarm(
        score=answer.score or 0.0,
        threshold=answer.threshold or 0.0,
        window_start_us=sample.start_us,
        window_end_us=sample.end_us,
        attribution=answer.attribution,
        model=source.model,
        bundle=source.bundle,
        runtime=source.runtime,
        precision=source.precision,
        reason=_BASELINE if prediction.reason == "baseline" else prediction.reason,
    )
