"""What is known of a round when it is over, and of a job when it is taken up again."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hedgerow.server.ledger.heads import Claim
from hedgerow.server.rounds.book import Contribution
from hedgerow.server.rounds.plan import Plan
from hedgerow.shared.packing import Vector


class RoundResult(msgspec.Struct, frozen=True):
    """The figures of one committed round; nothing in it tells who was drawn.

    ``replied`` updates count in the model, ``rejected`` were refused, ``dropped`` never came or failed on the device.
    ``bytes_up`` is what replies took on the wire; ``bytes_down`` the model's bytes times the devices that answered.
    ``epsilon`` is the largest that a device has claimed by then; in central modes what the population was charged by then;
    None without privacy. ``metrics`` are the devices' mean training metrics, empty with privacy.
    """

    drawn: int
    replied: int
    rejected: int
    dropped: int
    reasons: dict[str, int]
    below_quorum: bool
    bytes_up: int
    bytes_down: int
    duration_s: float
    epsilon: float | None
    metrics: dict[str, float]


class Commit(NamedTuple):
    """All that one round writes in one transaction. ``contributions`` are per exchange."""

    plan: Plan
    result: RoundResult
    contributions: tuple[tuple[Contribution, ...], ...]
    claims: dict[str, Claim]
    model: Vector
    state: bytes
    next_plan: Plan | None


class Progress(NamedTuple):
    """Where a job stands after its last committed round. ``plan`` is the one that was already drawn, if any."""

    rounds_done: int
    model: Vector
    state: bytes
    plan: Plan | None
    heads: dict[str, Claim]
