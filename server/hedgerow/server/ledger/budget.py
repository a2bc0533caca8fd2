"""What a central job may spend, as functions of values: who was charged what before, and is there room for more?

The unit is a device. Jobs over the same devices compose, whatever their names and models: a device pays for every job
whose population holds it, drawn or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from hedgerow.shared.errors import BudgetError
from hedgerow.shared.job import Job
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.central import CentralPlan, plan_central
from hedgerow.shared.privacy.central_report import CentralRecord
from hedgerow.shared.privacy.events import PrivacyEvent

_SLACK = 1e-9


class Account(msgspec.Struct, frozen=True):
    """One central job in the ledger. ``begun`` rounds are reserved or charged; ``closed``: no more will follow.

    ``earlier`` are the events that its devices had before, which its ε counts in.
    """

    job_id: str
    devices: tuple[str, ...]
    plan: CentralPlan
    earlier: tuple[PrivacyEvent, ...]
    earlier_unprotected: bool
    begun: int = 0
    closed: bool = False

    def committed(self) -> tuple[PrivacyEvent, ...]:
        """Return what counts against other jobs: all planned rounds, or those begun once it is closed.

        A round that was reserved when its job ended may have become public at the last moment: it counts.
        """
        return self.plan.events(self.begun if self.closed else self.plan.rounds)

    def record(self, ledger_head: str) -> CentralRecord:
        """Return what the privacy report is made of; ``ledger_head`` is the end of the chain of charges."""
        return CentralRecord(self.plan, self.earlier, self.earlier_unprotected, ledger_head=ledger_head)

    def epsilon_after(self, rounds: int) -> float:
        """Return ε by PLD at the plan's δ after ``rounds`` rounds, earlier jobs included."""
        return self.plan.epsilon_after(rounds, self.earlier)


class Opening(NamedTuple):
    """A job that asks for an account over ``devices``; ``unprotected``: they were in jobs without device-level privacy."""

    job_id: str
    job: Job
    devices: tuple[str, ...]
    unprotected: bool


def spent_on(accounts: Iterable[Account], devices: AbstractSet[str]) -> tuple[PrivacyEvent, ...]:
    """Return what jobs that share a device with ``devices`` have charged or may still.

    Adding all of them up bounds each device's loss from above, also where no one device was in all of them.
    """
    return tuple(
        event
        for account in accounts
        if not devices.isdisjoint(account.devices)
        for event in account.committed()
    )


def open_account(opening: Opening, accounts: Iterable[Account], device_budget: float) -> Account:
    """Return the account of a new job: noise such that it and all earlier jobs stay within what the job asks.

    Raises BudgetError if earlier jobs have spent that, or if a device's total would exceed ``device_budget`` (ε, at the
    job's δ); ConfigError as ``plan_central``.
    """
    job, devices = opening.job, tuple(sorted(set(opening.devices)))
    earlier = spent_on(accounts, frozenset(devices))
    plan = plan_central(job.privacy, job.cohort, len(devices), job.rounds, earlier)
    if plan.epsilon > device_budget + _SLACK:
        before = epsilon(earlier, plan.delta)
        raise BudgetError(
            f"these {job.rounds} rounds would take the devices' total to ε = {plan.epsilon:.4g} at δ = {plan.delta:g} "
            f"({before:.4g} of it from earlier jobs), over their budget of {device_budget:g}; ask for less (epsilon, rounds, "
            "more noise), or raise device_budget_epsilon in server.toml"
        )
    return Account(opening.job_id, devices, plan, earlier, opening.unprotected)
