"""What a ledger's entries add up to: a pure fold, the same on the device and for whoever recomputes the file.

Rules, each checked as entries are applied, so that a file that breaks one is refused:

* a job is opened once, with privacy or without, and reserves only while open;
* an exchange is reserved at most once, with the steps planned, at most ``rounds`` times in all;
* only a reserved exchange is released, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.privacy.entries import (
    Body,
    JobClosed,
    JobOpened,
    Released,
    Reserved,
    SampleRange,
    Unprotected,
)
from hedgerow.shared.privacy.events import DpSgdSteps, PrivacyEvent, UnprotectedRelease

Exchange = tuple[int, int]


@dataclass
class JobAccount:
    """One job with privacy: its plan, what it has reserved and released.

    ``earlier`` is what jobs opened before it had charged, or might still, to samples that could be among its own; the
    job's noise was calibrated with it.
    """

    opened: JobOpened
    reserved: dict[Exchange, int] = field(default_factory=dict)
    released: dict[Exchange, tuple[Released, bytes]] = field(default_factory=dict)
    closed: bool = False
    earlier: tuple[PrivacyEvent, ...] = ()

    @property
    def steps(self) -> int:
        """Steps charged so far."""
        return sum(self.reserved.values())

    @property
    def planned_steps(self) -> int:
        """Steps that count against others' budgets: all that were planned, or those charged once it is closed."""
        return self.steps if self.closed else self.opened.steps_per_round * self.opened.rounds

    def charged_until(self, exchange: Exchange) -> int:
        """Return how many exchanges were charged by the time of ``exchange``, itself included. Raises ValueError for none."""
        return list(self.reserved).index(exchange) + 1

    def charged(self) -> tuple[PrivacyEvent, ...]:
        """Return what the job has been charged."""
        return self._event(self.steps)

    def committed(self) -> tuple[PrivacyEvent, ...]:
        """Return what the job has been charged or may still charge."""
        return self._event(self.planned_steps)

    def _event(self, steps: int) -> tuple[PrivacyEvent, ...]:
        plan = self.opened
        return (DpSgdSteps(plan.sampling_rate, plan.noise_multiplier, steps),) if steps else ()


class LedgerState:
    """The fold over a ledger's entries."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobAccount] = {}
        self.unprotected: dict[str, Unprotected] = {}

    def apply(self, body: Body, entry_hash: bytes) -> None:
        """Take the next entry. Raises IntegrityError, changing nothing, if it breaks a rule."""
        match body:
            case JobOpened():
                self._require_new(body.job_id)
                self.jobs[body.job_id] = JobAccount(body, earlier=self.committed_on(body.samples))
            case Unprotected():
                self._require_new(body.job_id)
                self.unprotected[body.job_id] = body
            case Reserved():
                self._reserve(body)
            case Released():
                self._release(body, entry_hash)
            case JobClosed():
                self._account(body.job_id).closed = True

    def _reserve(self, body: Reserved) -> None:
        account, key = self._account(body.job_id), (body.round, body.exchange)
        self._require(not account.closed, f"job {body.job_id} reserves after it was closed")
        self._require(key not in account.reserved, f"job {body.job_id} reserves exchange {key} twice")
        self._require(
            body.steps == account.opened.steps_per_round and len(account.reserved) < account.opened.rounds,
            f"job {body.job_id} reserves more than it planned",
        )
        account.reserved[key] = body.steps

    def _release(self, body: Released, entry_hash: bytes) -> None:
        account, key = self._account(body.job_id), (body.round, body.exchange)
        self._require(key in account.reserved, f"job {body.job_id} releases exchange {key} without reserving")
        self._require(key not in account.released, f"job {body.job_id} releases exchange {key} twice")
        account.released[key] = (body, entry_hash)

    def _account(self, job_id: str) -> JobAccount:
        self._require(job_id in self.jobs, f"job {job_id} was never opened")
        return self.jobs[job_id]

    def _require_new(self, job_id: str) -> None:
        known = job_id in self.jobs or job_id in self.unprotected
        self._require(not known, f"job {job_id} is opened twice")

    def _require(self, sound: bool, what: str) -> None:
        if not sound:
            raise IntegrityError(f"the privacy ledger contradicts itself: {what}")

    def committed_on(self, samples: SampleRange) -> tuple[PrivacyEvent, ...]:
        """Return what jobs with privacy have charged, or may still, to samples that could be among these.

        Adding all of them up bounds the loss of each sample from above.
        """
        return tuple(
            event
            for account in self.jobs.values()
            if not samples.apart_from(account.opened.samples)
            for event in account.committed()
        )

    def is_unprotected(self, samples: SampleRange) -> bool:
        """Return whether updates without noise have left that could be of these samples (central modes included)."""
        return any(not samples.apart_from(job.samples) for job in self.unprotected.values())

    def charged_with(self, job_id: str) -> tuple[PrivacyEvent, ...]:
        """Return what all jobs, earlier and later, have charged to samples that this job may have touched."""
        own, seen = self.jobs[job_id].opened.samples, False
        events: list[PrivacyEvent] = []
        for account in self.jobs.values():
            other = account.opened.samples
            seen = seen or account.opened.job_id == job_id
            apart = other.apart_from(own) if seen else own.apart_from(other)
            if account.opened.job_id == job_id or not apart:
                events += account.charged()
        for job in self.unprotected.values():
            if not (own.apart_from(job.samples) or job.samples.apart_from(own)):
                events.append(UnprotectedRelease(job.job_id))
        return tuple(events)

    def charged(self) -> tuple[PrivacyEvent, ...]:
        """Return everything that this device has been charged, as if all had fallen on the same sample."""
        private = [event for account in self.jobs.values() for event in account.charged()]
        return (*private, *(UnprotectedRelease(job_id) for job_id in self.unprotected))
