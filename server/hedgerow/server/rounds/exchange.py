"""One exchange of a round: an instruction for each device, and what is done with each answer.

A round is a list of exchanges. Plain averaging needs one, ``TrainExchange``; a mechanism with several (keys, masked
updates, unmasking) brings its own classes and a payload per device, and the loop stays as it is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from hedgerow.server.aggregation.aggregator import RoundSum, Update
from hedgerow.server.ledger.heads import Claim, LedgerRegressedError, check_forward
from hedgerow.server.rounds import rules
from hedgerow.server.rounds.book import Contribution
from hedgerow.server.rounds.link import Reply
from hedgerow.server.rounds.plan import Key
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Job, TrainInstruction, TrainReply

_INLINE_ADD_BYTES: Final = 256 * 1024


class Exchange(Protocol):
    """One question to each device of a cohort. ``index`` counts from 0 within the round."""

    index: int

    def instruction(self, device: str, deadline_s: float) -> TrainInstruction:
        """Return what ``device`` is asked."""

    async def accept(self, key: Key, reply: Reply, header: TrainReply) -> Contribution:
        """Take one admitted answer in. Raises UpdateRejectedError; nothing of the answer counts then."""


class Question(NamedTuple):
    """What all devices of one round are asked alike; ``model`` is empty where they fetch it by its hash."""

    job_id: str
    job: Job
    round: int
    recipe_hash: str
    n_parameters: int
    model_sha256: str
    model: bytes


class TrainExchange:
    """Train from the round's model and send the update. Claims that pass are kept in ``claims``.

    ``regressed`` hears of a device that shows an older ledger than the one in ``heads``.
    """

    index = 0

    def __init__(
        self,
        question: Question,
        total: RoundSum,
        heads: Mapping[str, Claim],
        regressed: Callable[[str, str], None],
    ) -> None:
        self.claims: dict[str, Claim] = {}
        self._question = question
        self._total = total
        self._heads = heads
        self._regressed = regressed
        self._metrics: dict[str, float] = {}
        self._metric_weights: dict[str, float] = {}

    def instruction(self, device: str, deadline_s: float) -> TrainInstruction:
        """Return the round's question; the same for every device but for the time that is left."""
        del device
        question, job = self._question, self._question.job
        return TrainInstruction(
            job_id=question.job_id,
            round=question.round,
            exchange=self.index,
            recipe=job.recipe,
            recipe_hash=question.recipe_hash,
            parameters=job.parameters,
            privacy=job.privacy,
            training=job.training,
            packing=job.packing,
            rounds=job.rounds,
            n_parameters=question.n_parameters,
            model_sha256=question.model_sha256,
            deadline_s=deadline_s,
            model=question.model,
        )

    async def accept(self, key: Key, reply: Reply, header: TrainReply) -> Contribution:
        """Check the header, then the ledger claim, then the bytes; then add them to the sum."""
        question = self._question
        accepted = rules.check_header(
            question.job, question.job_id, question.round, self.index, question.n_parameters, reply, header
        )
        claim = accepted.claim
        if claim is not None:
            self._check_forward(key.device, claim)
        update = Update(key.device, reply.payload, accepted.weight, accepted.loss)
        # A small update is added sooner than a thread could be woken for it.
        if reply.n_bytes <= _INLINE_ADD_BYTES:
            self._total.add(update)
        else:
            await asyncio.to_thread(self._total.add, update)
        if claim is not None:
            self.claims[key.device] = claim
        self._add_metrics(accepted.metrics, accepted.weight)
        private = question.job.privacy.mode != "none"
        return Contribution(
            key.device,
            "counted",
            n_bytes=reply.n_bytes,
            n_samples=None if private else header.n_samples,
            ledger_head=claim.head if claim else None,
            epsilon=claim.epsilon if claim else None,
            delta=claim.delta if claim else None,
        )

    def mean_metrics(self) -> dict[str, float]:
        """Return the devices' training metrics, averaged as the updates are; empty with privacy."""
        return {name: total / self._metric_weights[name] for name, total in sorted(self._metrics.items())}

    def epsilon(self) -> float | None:
        """Return the largest ε that a device has claimed in this job by now, None without claims."""
        claims = {**self._heads, **self.claims}
        return max((claim.epsilon for claim in claims.values()), default=None)

    def _check_forward(self, device: str, claim: Claim) -> None:
        try:
            check_forward(self._heads.get(device), claim)
        except LedgerRegressedError as error:
            self._regressed(device, str(error))
            raise UpdateRejectedError("ledger-regressed", str(error)) from error

    def _add_metrics(self, metrics: dict[str, float], weight: float) -> None:
        for name, value in metrics.items():
            if math.isfinite(value):
                self._metrics[name] = self._metrics.get(name, 0.0) + weight * value
                self._metric_weights[name] = self._metric_weights.get(name, 0.0) + weight
