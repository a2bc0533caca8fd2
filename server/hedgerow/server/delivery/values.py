"""What delivery tells about rollouts, as values for the command line, the API and the dashboard."""

from __future__ import annotations

from datetime import datetime

import msgspec

from hedgerow.server.delivery.progress import Kind, RolloutState


class Rollout(msgspec.Struct, frozen=True):
    """One order to the fleet; ``devices`` counts them per state. Times are UTC without zone."""

    id: int
    model: str
    version: int
    manifest_sha256: str
    kind: Kind
    state: RolloutState
    started: datetime
    changed: datetime
    devices: dict[str, int]
