"""What a job's rounds tell the rest of the server: on the bus, with figures, without saying who was drawn.

``update.rejected`` and ``ledger.regressed`` name a device, which tells that it was drawn: they are for admins and for
the audit log, and whoever shows them to others leaves the device out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from hedgerow.server.bus import Bus
from hedgerow.server.rounds.book import Book
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import RoundResult
from hedgerow.shared.job import Job
from hedgerow.shared.packing import Vector

_PROGRESS_EVERY_S: Final = 0.2
_log = logging.getLogger(__name__)


class JobNews:
    """Publishes one job's news; ``scored`` gets each committed model to be scored."""

    def __init__(self, bus: Bus, job_id: str, job: Job, scored: Callable[[int, Vector], None]) -> None:
        self._bus = bus
        self._job_id = job_id
        self._job = job
        self._scored = scored
        self._told_at = 0.0

    def progress(self, round: int, book: Book) -> None:
        """Publish ``round.progress``, a few times a second at most."""
        now = time.monotonic()
        if now - self._told_at < _PROGRESS_EVERY_S:
            return
        self._told_at = now
        outcomes = book.outcomes
        self._bus.publish(
            "round.progress",
            job_id=self._job_id,
            round=round,
            rounds=self._job.rounds,
            drawn=len(book.cohort),
            replied=outcomes["counted"],
            rejected=outcomes["rejected"],
            dropped=outcomes["declined"],
            bytes_up=book.bytes_up,
        )

    def rejected(self, round: int, device: str, reason: str, detail: str) -> None:
        """Publish ``update.rejected``."""
        _log.warning(
            "job %s round %d: update of %s rejected (%s): %s", self._job_id, round, device, reason, detail
        )
        self._bus.publish(
            "update.rejected", job_id=self._job_id, round=round, device=device, reason=reason, detail=detail
        )

    def regressed(self, round: int, device: str, detail: str) -> None:
        """Publish ``ledger.regressed``."""
        _log.error("job %s round %d: ledger of %s went back: %s", self._job_id, round, device, detail)
        self._bus.publish("ledger.regressed", job_id=self._job_id, round=round, device=device, detail=detail)

    def aborted(self, plan: Plan, counted: int, why: str) -> None:
        """Publish ``round.aborted``."""
        _log.warning("job %s round %d attempt %d aborted: %s", self._job_id, plan.round, plan.attempt, why)
        self._bus.publish(
            "round.aborted",
            job_id=self._job_id,
            round=plan.round,
            rounds=self._job.rounds,
            attempt=plan.attempt,
            replied=counted,
            quorum=self._job.cohort.quorum,
            reason=why,
        )

    def committed(self, round: int, result: RoundResult, model: Vector, model_sha256: str) -> None:
        """Publish ``round.committed`` with the round's figures, and have its model scored."""
        figures = {name: getattr(result, name) for name in result.__struct_fields__}
        self._bus.publish(
            "round.committed",
            job_id=self._job_id,
            round=round,
            rounds=self._job.rounds,
            quorum=self._job.cohort.quorum,
            model_sha256=model_sha256,
            **figures,
        )
        self._scored(round, model)
