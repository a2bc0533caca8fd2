"""What a device's event says, in one line for people."""

from __future__ import annotations

from hedgerow.shared.messages import Alarm, AlarmCleared, EventBody, GapRecord

TOP_CHANNELS = 3


def describe(body: EventBody) -> str:
    """Return one line: for an alarm its score, the channels that made it, the bundle and the runtime that raised it."""
    match body:
        case Alarm():
            return _alarm(body)
        case AlarmCleared():
            return f"{body.model or 'baseline'}: quiet again after {body.lasted_s:.0f} s"
        case GapRecord():
            return f"events {body.first} to {body.last} are missing: {body.reason}"
        case _:
            return f"{body.code}: {body.text}"


def _alarm(alarm: Alarm) -> str:
    top = sorted(alarm.attribution, key=lambda share: -share.share)[:TOP_CHANNELS]
    channels = ", ".join(f"{share.channel} {share.share:.0%}" for share in top)
    ratio = alarm.score / alarm.threshold if alarm.threshold > 0 else float("inf")
    by = (
        f"{alarm.model} {alarm.bundle[:12]}, {alarm.runtime} {alarm.precision}"
        if alarm.bundle
        else alarm.reason
    )
    return f"anomaly: score {ratio:.1f} times its threshold; {channels} ({by})"
