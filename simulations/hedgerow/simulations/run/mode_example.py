"""Mode ``example``: DP-SGD on each device, by the plan that the device itself would make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from hedgerow.edge_agent.trainer.plan import StepPlan, schedule
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.privacy.accounting import calibrate_noise
from hedgerow.shared.privacy.events import DpSgdSteps
from hedgerow.shared.privacy.report import privacy_report
from hedgerow.simulations.population.values import Ints
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.mechanism import CLAIM, Doubles, Noised, Terms
from hedgerow.simulations.run.records import PrivacySummary
from hedgerow.simulations.run.spending import Spending

_NOTE = (
    "Simulated: noise and draws are keyed by the scenario's seed, which anybody may know, and scores look at the data. On a "
    "fleet each device draws its own by the operating system, and keeps its own ledger."
)


class ExamplePrivacy:
    """Per-example (ε, δ) on each device. ``counts`` int64 ``(devices,)`` are the examples that each trains on."""

    mode = "example"
    uniform = True

    def __init__(self, job: Job, counts: Ints) -> None:
        """Raises ConfigError without ε and δ."""
        if job.privacy.epsilon is None or job.privacy.delta is None:
            raise ConfigError("job.privacy: mode 'example' needs epsilon and delta")
        self._job = job
        self._counts = counts
        self._epsilon, self.delta = job.privacy.epsilon, job.privacy.delta
        self._plans: dict[tuple[float, int], StepPlan] = {}

    def initial(self) -> bytes:
        """Return no state: every round's noise is its own."""
        return b""

    def terms(self, device: int) -> Terms | None:
        """Return the device's plan, made once for all devices of the same schedule; None where δ is above 1 / (10 n)."""
        n = int(self._counts[device])
        if n < 1 or self.delta * 10 * n > 1:
            return None
        return Terms(private=self._plan(n))

    def charges(self, round: int, trained: Sequence[int]) -> tuple[Charge, ...]:
        """Return the steps of this round, devices with the same plan together."""
        del round
        groups: dict[StepPlan, list[int]] = defaultdict(list)
        for device in trained:
            groups[self._plan(int(self._counts[device]))].append(device)
        return tuple(
            Charge(DpSgdSteps(plan.sampling_rate, plan.noise_multiplier, plan.steps), tuple(sorted(devices)))
            for plan, devices in groups.items()
        )

    def release(self, round: int, total: Doubles, weight: float, state: bytes) -> Noised:
        """Return the sum itself: each update in it is private already, and the mean is post-processing."""
        del round
        return Noised(total, weight, state)

    def epsilon(self, spending: Spending) -> float:
        """Return ε spent so far, the largest over devices."""
        return spending.epsilon_now(self.delta)

    def summary(self, spending: Spending) -> PrivacySummary:
        """Return what a fleet of such devices would claim."""
        report = privacy_report(self._job.privacy)
        noise = [plan.noise_multiplier for plan in self._plans.values()]
        return PrivacySummary(
            mode=self.mode,
            claim=CLAIM,
            unit=report.unit,
            relation=report.relation,
            epsilon=spending.epsilon(self.delta),
            epsilon_rdp=spending.epsilon(self.delta, "rdp"),
            epsilon_replace=spending.epsilon(self.delta, "pld", "replace"),
            delta=self.delta,
            noise_multiplier=min(noise, default=None),
            sampling="Poisson on the device, each step; simulated from the scenario's seed",
            notes=(_NOTE, *report.notes),
            report=msgspec.to_builtins(report),
        )

    def _plan(self, n: int) -> StepPlan:
        privacy, drawn = self._job.privacy, schedule(self._job.training, n)
        key = (drawn.sampling_rate, drawn.steps_per_round)
        if key not in self._plans:
            noise = calibrate_noise(
                self._epsilon, self.delta, drawn.sampling_rate, drawn.steps_per_round * self._job.rounds
            )
            self._plans[key] = StepPlan(
                drawn.sampling_rate, noise, privacy.clip_norm_l2, drawn.steps_per_round
            )
        return self._plans[key]
