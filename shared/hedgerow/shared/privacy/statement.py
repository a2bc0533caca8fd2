"""What a device's ledger file says was spent, computed from the file alone. Local: it tells how many examples there are."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.ledger_file import verify
from hedgerow.shared.privacy.state import JobAccount, LedgerState


class LedgerStatement(msgspec.Struct, frozen=True):
    """What one job was charged on one device.

    ``epsilon_pld`` and ``epsilon_rdp`` are of this job alone at ``delta``; ``epsilon_samples`` composes (by PLD) all
    jobs that may have touched the same samples, and is infinite if one of them had no privacy.
    ``steps`` were charged of ``planned_steps``; ``epsilon_asked`` is the job's budget.
    """

    job_id: str
    epsilon_pld: float
    epsilon_rdp: float
    epsilon_samples: float
    epsilon_asked: float
    delta: float
    n: int
    steps: int
    planned_steps: int
    noise_multiplier: float
    sampling_rate: float
    clip_norm_l2: float
    rounds_released: int
    head: str

    @property
    def within_budget(self) -> bool:
        """Whether the job alone kept to the ε it asked for, and δ to 1 / (10 n)."""
        return self.epsilon_pld <= self.epsilon_asked and self.delta * 10 * self.n <= 1


def recompute(path: Path) -> tuple[LedgerStatement, ...]:
    """Return a statement of each job with privacy in the ledger at ``path``, in order. Raises as ``verify``."""
    chain = verify(path)
    return tuple(_statement(account, chain.state, chain.head) for account in chain.state.jobs.values())


def recompute_job(path: Path, job_id: str) -> LedgerStatement:
    """Return the statement of one job. Raises ConfigError if the ledger does not know it, and as ``verify``."""
    chain = verify(path)
    if job_id not in chain.state.jobs:
        raise ConfigError(f"{path}: no job {job_id!r} with privacy in this ledger")
    return _statement(chain.state.jobs[job_id], chain.state, chain.head)


def lifetime_epsilon(path: Path, delta: float) -> float:
    """Return ε at ``delta`` of everything ever charged on this device, as if all had fallen on one sample.

    An upper bound for each sample; infinity once a job has trained here whose updates leave without noise (mode ``none``,
    and central modes: against the server they have none).
    """
    return epsilon(verify(path).state.charged(), delta)


def _statement(account: JobAccount, state: LedgerState, head: bytes) -> LedgerStatement:
    plan, charged = account.opened, account.charged()
    return LedgerStatement(
        job_id=plan.job_id,
        epsilon_pld=epsilon(charged, plan.delta, "pld"),
        epsilon_rdp=epsilon(charged, plan.delta, "rdp"),
        epsilon_samples=epsilon(state.charged_with(plan.job_id), plan.delta, "pld"),
        epsilon_asked=plan.epsilon,
        delta=plan.delta,
        n=plan.n,
        steps=account.steps,
        planned_steps=plan.steps_per_round * plan.rounds,
        noise_multiplier=plan.noise_multiplier,
        sampling_rate=plan.sampling_rate,
        clip_norm_l2=plan.clip_norm_l2,
        rounds_released=len(account.released),
        head=head.hex(),
    )
