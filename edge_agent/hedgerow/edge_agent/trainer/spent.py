"""The ε that a device states with an update: what was really spent by then, from its ledger alone.

It follows from the job, the order of the rounds that were charged, and the plans of this job and of earlier ones on the
same samples. So the same exchange always states the same ε, also when it is sent again by another process, and it tells
nothing about the samples that those plans do not: they depend on the rounded number of examples, which counts as public.
"""

from __future__ import annotations

from hedgerow.shared.privacy.events import DpSgdSteps
from hedgerow.shared.privacy.growth import Growth, RoundCharge
from hedgerow.shared.privacy.state import Exchange, JobAccount


class SpentSoFar:
    """Works out ε for the replies of one job, keeping what is costly. Not safe for two threads at once."""

    def __init__(self) -> None:
        self._growth: Growth | None = None

    def after(self, account: JobAccount, exchange: Exchange) -> float:
        """Return an upper bound of ε once ``exchange`` is charged, earlier jobs included; at most the ε asked for.

        Raises ValueError if the exchange was never charged.
        """
        charge = charge_of(account)
        if self._growth is None or self._growth.charge != charge:
            self._growth = Growth(charge)
        return self._growth.after(account.charged_until(exchange))


def charge_of(account: JobAccount) -> RoundCharge:
    """Return what each round of a job charges, and what counts before its first."""
    plan = account.opened
    return RoundCharge(
        DpSgdSteps(plan.sampling_rate, plan.noise_multiplier, plan.steps_per_round),
        plan.rounds,
        plan.epsilon,
        plan.delta,
        account.earlier,
    )
