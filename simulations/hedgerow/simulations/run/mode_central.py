"""Mode ``central-poisson``: the server's mechanism, with coins and noise from the scenario's seed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import Job
from hedgerow.shared.privacy.central import add_central_noise, plan_central
from hedgerow.shared.privacy.events import CentralRounds
from hedgerow.shared.privacy.noise import SeededStream
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.mechanism import CLAIM, Doubles, Noised, Terms
from hedgerow.simulations.run.records import PrivacySummary
from hedgerow.simulations.run.spending import Spending

_NOTES = (
    "Simulated: coins and noise are keyed by the scenario's seed, which anybody may know. On a fleet both come from the "
    "operating system's random numbers.",
    "The claim would be device-level, for whoever sees the models: not against the server, nor against anyone who sees who "
    "was drawn.",
    "Losses, update norms and numbers of replies are shown here; a fleet withholds them. Scores look at simulated data and lie "
    "outside ε.",
    "The noisy sum is divided by q·N, whatever came; offline, late, failed and rejected devices contribute zero.",
    "Noise is floating point: the guarantee is of the ideal Gaussian (Mironov 2012 describes the gap).",
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
        """Return the noisy sum and the constant that it is divided by; ``weight`` plays no part."""
        del weight
        stream = SeededStream.of(self._seed, "central-noise", round)
        noisy = add_central_noise(total, self.plan.noise_multiplier, self.plan.clip_norm_l2, stream)
        return Noised(noisy, self.plan.denominator, state)

    def epsilon(self, spending: Spending) -> float:
        """Return ε spent so far."""
        return spending.epsilon_now(self.plan.delta)

    def summary(self, spending: Spending) -> PrivacySummary:
        """Return what a fleet would claim of these rounds."""
        plan = self.plan
        return PrivacySummary(
            mode=self.mode,
            claim=CLAIM,
            unit="one device, with all it ever contributes",
            relation="zero-out one device (population and denominator stay)",
            epsilon=spending.epsilon(plan.delta),
            epsilon_rdp=spending.epsilon(plan.delta, "rdp"),
            epsilon_replace=self._replace(spending),
            delta=plan.delta,
            noise_multiplier=plan.noise_multiplier,
            sampling=f"Poisson, a coin per registered device with rate {plan.sampling_rate:g}; simulated from the scenario's seed",
            notes=_NOTES,
            report=msgspec.to_builtins(plan),
        )

    def _replace(self, spending: Spending) -> float | None:
        try:
            return spending.epsilon(self.plan.delta, "pld", "replace")
        except UnsupportedError:
            return None
