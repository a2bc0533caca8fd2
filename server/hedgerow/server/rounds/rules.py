"""The decisions of a round, as functions of values: is this reply counted, and may the round release?

With privacy the number of replies decides nothing: a round that waited, repeated or withheld because of it would
publish an un-noised function of who answered. Quorum is then an alert; without privacy a round below it is aborted.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from hedgerow.server.ledger.heads import Claim
from hedgerow.server.rounds.link import Reply
from hedgerow.shared import limits
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import CENTRAL_MODES, Job, TrainReply

EPSILON_SLACK = 1e-6
_MAX_HEAD_CHARS = 64


class Release(Enum):
    """What happens when a round has collected what it will."""

    RELEASE = "release"
    RELEASE_WITH_ALERT = "release-with-alert"
    ABORT = "abort"


class Accepted(NamedTuple):
    """What the job's rules let count of a reply; the bytes are still to be checked. ``claim`` is for privacy alone."""

    weight: float
    loss: float | None
    metrics: dict[str, float]
    claim: Claim | None


def may_release(job: Job, counted: int) -> Release:
    """Return whether a round of ``job`` with ``counted`` updates releases."""
    if counted >= job.cohort.quorum:
        return Release.RELEASE
    return Release.RELEASE_WITH_ALERT if job.privacy.mode != "none" else Release.ABORT


def check_header(
    job: Job, job_id: str, round: int, exchange: int, n_parameters: int, reply: Reply, header: TrainReply
) -> Accepted:
    """Return what counts of a reply's header.

    Raises UpdateRejectedError: ``stale`` for another round or exchange, ``malformed`` for a header that contradicts
    the job or its bytes, ``wrong-size`` and ``over-size``.
    """
    if (header.job_id, header.round, header.exchange) != (job_id, round, exchange):
        raise UpdateRejectedError(
            "stale",
            f"answers {header.job_id!r} round {header.round} exchange {header.exchange}, "
            f"not {job_id!r} round {round} exchange {exchange}",
        )
    if header.packing != job.packing:
        raise UpdateRejectedError("malformed", f"packed as {header.packing}, the job asks for {job.packing}")
    if header.n_parameters != n_parameters:
        raise UpdateRejectedError(
            "wrong-size", f"{header.n_parameters} parameters, the model has {n_parameters}"
        )
    _check_size(header, reply)
    if job.privacy.mode == "example":
        return Accepted(1.0, None, {}, _claim(job, header))
    if job.privacy.mode in CENTRAL_MODES:
        # Everybody counts once, and nothing but the update is looked at: what else a header says would be a release.
        return Accepted(1.0, None, {}, None)
    return _accept_open(job, header)


def _check_size(header: TrainReply, reply: Reply) -> None:
    size = sum(view.nbytes for view in reply.payload)
    if size > limits.MAX_UPDATE_BYTES:
        raise UpdateRejectedError("over-size", f"{size} bytes, at most {limits.MAX_UPDATE_BYTES}")
    if header.update_bytes != size:
        raise UpdateRejectedError("wrong-size", f"{size} bytes came, the header says {header.update_bytes}")


def _claim(job: Job, header: TrainReply) -> Claim:
    """Return what the device commits to, which is no more than the job allows."""
    head, length = header.ledger_head, header.ledger_length
    if not head or length is None or header.epsilon is None or header.delta is None:
        raise UpdateRejectedError(
            "malformed", "an update of a private job needs ledger_head, ledger_length, epsilon and delta"
        )
    if len(head) > _MAX_HEAD_CHARS or not 0 < length < 2**31:
        raise UpdateRejectedError("malformed", "ledger_head or ledger_length is out of its range")
    if job.privacy.epsilon is None or job.privacy.delta is None:
        raise UpdateRejectedError("malformed", "the job names no epsilon and delta to compare with")
    if not 0 <= header.epsilon <= job.privacy.epsilon + EPSILON_SLACK:
        raise UpdateRejectedError(
            "over-budget", f"claims ε = {header.epsilon:.6g}, the job allows {job.privacy.epsilon:.6g}"
        )
    if not 0 <= header.delta <= job.privacy.delta:
        raise UpdateRejectedError(
            "over-budget", f"claims δ = {header.delta:.3g}, the job allows {job.privacy.delta:.3g}"
        )
    return Claim(header.round, head, length, header.epsilon, header.delta)


def _accept_open(job: Job, header: TrainReply) -> Accepted:
    metrics = {name[:64]: value for name, value in list(header.metrics.items())[:32]}
    loss = metrics.get("loss")
    if job.strategy.weighting == "uniform":
        return Accepted(1.0, loss, metrics, None)
    n = header.n_samples
    if n is None or not 1 <= n <= job.training.max_samples:
        raise UpdateRejectedError(
            "malformed",
            f"n_samples is {n}; a job weighted by samples needs 1 to {job.training.max_samples}",
        )
    return Accepted(float(n), loss, metrics, None)
