"""Mode ``central-poisson``: the server's mechanism, with coins and noise from the scenario's seed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hedgerow.shared.job import Job
from hedgerow.shared.privacy.central import add_central_noise, plan_central
from hedgerow.shared.privacy.central_report import CentralRecord, central_report
from hedgerow.shared.privacy.events import CentralRounds
from hedgerow.shared.privacy.noise import SeededStream
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.mechanism import CLAIM, Doubles, Noised, Terms
from hedgerow.simulations.run.records import PrivacySummary
from hedgerow.simulations.run.spending import Spending

_SHOWN = (
    "Losses, update norms and numbers of replies are shown here; a fleet withholds them. Scores on devices look at simulated "
    "data and lie outside epsilon."
)


class CentralPoisson:
    """Noise z·C on the sum of clipped updates, divided by the constant q·N of ``devices`` registered ones."""

    mode = "central-poisson"
    uniform = True

    def __init__(self, job: Job, devices: int, seed: int) -> None:
        """Plan all rounds. Raises ConfigError for a block of another mode, BudgetError for an ε that protects nobody."""
        self.plan = plan_central(job.privacy, job.cohort, devices, job.rounds)
        self._seed = seed

    def initial(self) -> bytes:
        """Return no state: every round's noise is its own."""
        return b""

    def terms(self, device: int) -> Terms:
        """Return the clip norm."""
        del device
        return Terms(clip_norm_l2=self.plan.clip_norm_l2)

    def charges(self, round: int, trained: Sequence[int]) -> tuple[Charge, ...]:
        """Return one round, charged to every registered device: each had its coin."""
        del round, trained
        return (Charge(CentralRounds(self.plan.sampling_rate, self.plan.noise_multiplier, 1)),)

    def release(self, round: int, total: Doubles, weight: float, state: bytes) -> Noised:
        """Return the noisy sum, in its place, and the constant that it is divided by; ``weight`` plays no part."""
        del weight
        stream = SeededStream.of(self._seed, "central-noise", round)
        noisy = add_central_noise(
            total, self.plan.noise_multiplier, self.plan.clip_norm_l2, stream, out=total
        )
        return Noised(noisy, self.plan.denominator, state)

    def epsilon(self, spending: Spending) -> float:
        """Return ε spent so far."""
        return spending.epsilon_now(self.plan.delta)

    def summary(self, spending: Spending) -> PrivacySummary:
        """Return what a fleet would claim of the rounds played so far."""
        played = sum(event.rounds for event in self._charged(spending))
        plan = msgspec.structs.replace(self.plan, rounds=max(1, played))
        report = central_report(self.mode, CentralRecord(plan, simulated=True))
        return PrivacySummary(
            mode=self.mode,
            claim=CLAIM,
            unit=report.unit,
            relation=report.relation,
            epsilon=spending.epsilon(plan.delta),
            epsilon_rdp=spending.epsilon(plan.delta, "rdp"),
            epsilon_replace=spending.epsilon(plan.delta, "pld", "replace"),
            delta=plan.delta,
            noise_multiplier=plan.noise_multiplier,
            sampling=report.sampling,
            notes=(*report.notes, _SHOWN),
            report=msgspec.to_builtins(report),
        )

    def _charged(self, spending: Spending) -> list[CentralRounds]:
        return [
            event for events in spending.heaviest() for event in events if isinstance(event, CentralRounds)
        ]
