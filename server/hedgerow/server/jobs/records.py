"""A job as others see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from hedgerow.shared.job import Job

State = Literal["queued", "running", "packaging", "delivered", "failed", "cancelled"]
UNFINISHED: frozenset[State] = frozenset({"queued", "running", "packaging"})


class JobRecord(msgspec.Struct, frozen=True):
    """One job with its progress. Times are UTC without zone.

    ``epsilon`` and ``delta`` are the largest that a device claims so far, in central modes what the population was charged
    so far; None without privacy. ``result`` is what packaging left (model, version), ``reason`` why it failed or was cancelled.
    """

    job_id: str
    number: int
    job: Job
    state: State
    reason: str
    submitted_by: str
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    rounds_done: int
    n_parameters: int
    recipe_hash: str
    model_sha256: str
    initial_scores: dict[str, float]
    epsilon: float | None
    delta: float | None
    result: dict[str, Any]


class RoundRecord(msgspec.Struct, frozen=True):
    """One committed round; nothing in it tells who was drawn. Figures as in ``rounds.records.RoundResult``."""

    round: int
    attempt: int
    committed_at: datetime
    duration_s: float
    drawn: int
    replied: int
    rejected: int
    dropped: int
    reasons: dict[str, int]
    below_quorum: bool
    bytes_up: int
    bytes_down: int
    epsilon: float | None
    metrics: dict[str, float]
    scores: dict[str, float]
    model_sha256: str


class CohortRecord(msgspec.Struct, frozen=True):
    """Who was drawn into a round and what each did, by (exchange, device). For admins only."""

    round: int
    cohort: tuple[str, ...]
    outcomes: tuple[tuple[int, str, str, str], ...]
    """(exchange, device, outcome, reason)."""
