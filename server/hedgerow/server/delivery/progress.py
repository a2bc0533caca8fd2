"""The rollout's state machine. Pure: a device's place and its report in, its next place out.

- ``serving`` is reached by one thing only: the device reports this very manifest serving.
- ``failed`` and ``timeout`` are not the end of a device: what it reports later counts, so that a device that was
  off for a day and then serves is shown as serving.
- A report about another manifest says nothing about this rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from hedgerow.shared.messages import BundleReport, ReportedState

DeviceState = Literal["pending", "downloading", "verified", "serving", "failed", "timeout"]
RolloutState = Literal["running", "done", "failed", "superseded"]
Kind = Literal["rollout", "rollback"]

UNFINISHED: frozenset[DeviceState] = frozenset({"pending", "downloading", "verified"})

_SHOWN_AS: Mapping[str, DeviceState] = {
    "downloading": "downloading",
    "verified": "verified",
    "serving": "serving",
    "failed": "failed",
    "rolled-back": "failed",
    "baseline": "failed",
}


class DeviceProgress(msgspec.Struct, frozen=True):
    """One device's place in a rollout. ``deadline`` is UTC without zone."""

    device: str
    state: DeviceState
    deadline: datetime
    reason: str = ""
    runtime: str = ""
    precision: str = ""


def advance(
    progress: DeviceProgress, reported: ReportedState, model: str, manifest_sha256: str
) -> DeviceProgress:
    """Return where the device is after it reported; the same value if that tells nothing new."""
    report = _about(reported, model, manifest_sha256)
    if report is None:
        return progress
    state = _SHOWN_AS[report.state]
    if progress.state == "timeout" and state in UNFINISHED:
        return progress
    reason = report.reason or ("" if state != "failed" else report.state)
    return msgspec.structs.replace(
        progress, state=state, reason=reason[:1000], runtime=report.runtime, precision=report.precision
    )


def expire(progress: DeviceProgress, now: datetime) -> DeviceProgress:
    """Return ``timeout`` for a device that is unfinished past its deadline."""
    if progress.state in UNFINISHED and now >= progress.deadline:
        reason = f"still {progress.state} at the deadline"
        return msgspec.structs.replace(progress, state="timeout", reason=reason)
    return progress


def summarise(states: Iterable[DeviceState]) -> RolloutState:
    """Return the rollout's state: running while a device is unfinished, done when all serve, else failed."""
    seen = set(states)
    if seen & UNFINISHED:
        return "running"
    return "failed" if seen & {"failed", "timeout"} else "done"


def _about(reported: ReportedState, model: str, manifest_sha256: str) -> BundleReport | None:
    mine = (r for r in reported.bundles if r.model == model and r.manifest_sha256 == manifest_sha256)
    return next(mine, None)
