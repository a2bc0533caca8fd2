"""One run's parts, put together: what a step of either loop works with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.simulations.engine.protocol import Answer, Batch, Engine, Task
from hedgerow.simulations.run.draws import cohort_seed, noise_seed
from hedgerow.simulations.run.judge import Judgement, central_scores, is_due, judge
from hedgerow.simulations.run.ledger import Entry, Ledger
from hedgerow.simulations.run.mechanism import Mechanism
from hedgerow.simulations.run.modes import make_mechanism
from hedgerow.simulations.run.records import NO_SCORE, RoundRecord
from hedgerow.simulations.run.rule import Rule, make_rule
from hedgerow.simulations.run.setting import Setting
from hedgerow.simulations.run.spending import Spending
from hedgerow.simulations.run.state import State, Totals
from hedgerow.simulations.run.world import World


@dataclass(frozen=True)
class Run:
    """The parts. ``rounds`` is how many the job has, ``until`` how many of them are played now; ``trial`` names a run of a sweep, else it is empty."""

    setting: Setting
    engine: Engine
    world: World
    rule: Rule
    mechanism: Mechanism
    ledger: Ledger
    spending: Spending
    rounds: int
    until: int
    trial: str = ""

    @classmethod
    def of(
        cls, setting: Setting, engine: Engine, ledger: Ledger, until: int | None = None, trial: str = ""
    ) -> Run:
        """Return a run of a checked scenario. Raises ConfigError or BudgetError as the privacy plan does."""
        scenario = setting.scenario
        world = World(scenario, setting.population.device_class)
        if not world.fits(setting.n).any():
            raise ConfigError(
                f"scenario {scenario.name}: device_class: no class has the memory_mib that this model takes"
            )
        return cls(
            setting, engine, world, make_rule(setting), make_mechanism(setting, noise_seed(scenario.seed, trial)), ledger,
            Spending(setting.population.devices), scenario.job.rounds, min(until or scenario.job.rounds, scenario.job.rounds), trial,
        )  # fmt: skip

    @property
    def noise_seed(self) -> int:
        """Return the seed of the noise: in a sweep each trial has its own."""
        return noise_seed(self.setting.scenario.seed, self.trial)

    @property
    def cohort_seed(self) -> int:
        """Return the seed by which devices are drawn."""
        scenario = self.setting.scenario
        return cohort_seed(scenario.job, scenario.seed, self.trial)

    def begin(self) -> State:
        """Return the state before the first round, with the scores of the untrained model."""
        setting = self.setting
        model = self.engine.hold(setting.model)
        return State(
            model=model,
            rule=self.rule.initial(),
            mechanism=self.mechanism.initial(),
            totals=Totals.of(setting.population.devices),
            initial_scores=central_scores(self.engine, model) if setting.scenario.evaluation.central else {},
        )

    def charge(self, round: int, trained: Sequence[int]) -> None:
        """Write what ``round`` costs before anything of it is released; once a round of this process."""
        charges = self.mechanism.charges(round, trained)
        if charges:
            self.ledger.charge(Entry(self.trial, round, charges))
            self.spending.add(charges)

    def task(self, device: int, round: int, weight: float, version: int = 0) -> Task:
        """Return one device's task. Raises ValueError for a device that declines."""
        terms = self.mechanism.terms(device)
        if terms is None:
            raise ValueError(f"device {device} declines the job")
        return Task(
            device=device,
            round=round,
            version=version,
            weight=weight,
            private=terms.private,
            clip_norm_l2=terms.clip_norm_l2,
            attack=self.world.attack(device, round),
            noise_seed=self.noise_seed if self.trial and terms.private is not None else None,
        )

    def weight(self, device: int, round: int) -> float:
        """Return what an update counts: 1, or the number of examples where the job says so."""
        if self.mechanism.uniform or self.setting.scenario.job.strategy.weighting == "uniform":
            return 1.0
        return float(self.setting.population.at(round).count(device))

    def train(self, batch: Batch, round: int) -> Answer:
        """Train, and see to it that not everything is broken. Raises ContentError naming what is likely at fault."""
        if not batch.tasks:
            return Answer(np.zeros(self.setting.n), 0.0, 0, (), {})
        answer = self.engine.train(batch)
        honest = [o for o, t in zip(answer.outcomes, batch.tasks, strict=True) if t.attack is None]
        if honest and all(outcome.rejected is not None for outcome in honest):
            reasons = ", ".join(sorted({str(outcome.rejected) for outcome in honest}))
            raise ContentError(
                f"round {round}: none of {len(honest)} honest devices sent an update that can count ({reasons}); "
                f"{self._likely(round)} is likely too large for this recipe and these examples: lower it"
            )
        return answer

    def _likely(self, round: int) -> str:
        """Return what is likely at fault when all fell apart: after the first round it may be what the server does."""
        job = self.setting.scenario.job
        rate = f"job.training.learning_rate = {job.training.learning_rate:g}"
        server = job.strategy.server_learning_rate
        if round > 1 and server > 1:
            return f"job.strategy.server_learning_rate = {server:g}, or {rate},"
        return rate

    def record(
        self, state: State, record: RoundRecord, answer: Answer, weights: dict[int, float], began: float
    ) -> RoundRecord:
        """Complete a round's record with what was learned, judge the model if that is due, and keep the record.

        ``began`` is when the round began, by the monotonic clock.
        """
        if is_due(self.setting.scenario, record.round, self.until):
            found = judge(
                self.engine, self.setting.scenario, self.setting.population, state.model, record.round
            )
            if self.setting.scenario.evaluation.central and self.setting.recipe.metric not in found.scores:
                record = msgspec.structs.replace(record, events=(*record.events, NO_SCORE))
        else:
            found = Judgement({})
        epsilon = self.mechanism.epsilon(self.spending)
        wall_s = time.monotonic() - began
        state.wall_s += wall_s
        done = msgspec.structs.replace(
            record,
            rejected=rejections(answer),
            loss=mean_loss(answer, weights),
            update_norm_l2=mean_norm(answer),
            scores=found.scores,
            device_mean=found.device_mean,
            device_quantiles=found.device_quantiles,
            cohorts=dict(found.cohorts),
            epsilon=epsilon,
            simulated_s=state.simulated_s,
            wall_s=wall_s,
        )
        state.records.append(done)
        return done


def mean_loss(answer: Answer, weights: dict[int, float]) -> float | None:
    """Return the weighted mean of the losses told by devices whose update counts."""
    told = [(o.loss, weights[o.device]) for o in answer.outcomes if o.rejected is None and o.loss is not None]
    told = [(loss, weight) for loss, weight in told if np.isfinite(loss)]
    total = sum(weight for _, weight in told)
    return sum(loss * weight for loss, weight in told) / total if total > 0 else None


def mean_norm(answer: Answer) -> float | None:
    """Return the mean L2 norm of the updates that count."""
    norms = [outcome.norm_l2 for outcome in answer.outcomes if outcome.rejected is None]
    return float(np.mean(norms)) if norms else None


def rejections(answer: Answer) -> dict[str, int]:
    """Return how many updates were rejected, by reason."""
    found: dict[str, int] = {}
    for outcome in answer.outcomes:
        if outcome.rejected is not None:
            found[outcome.rejected] = found.get(outcome.rejected, 0) + 1
    return found
