"""What private training will do on this device, decided from the job and the number of examples: pure functions."""

from __future__ import annotations

import hashlib
import math

import msgspec

from hedgerow.edge_agent.trainer.codes import Code, DeclinedError
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction
from hedgerow.shared.privacy.accounting import calibrate_noise
from hedgerow.shared.privacy.entries import JobOpened, SampleRange
from hedgerow.shared.privacy.state import LedgerState


class Schedule(msgspec.Struct, frozen=True):
    """How private training draws: ``sampling_rate`` per step, ``steps_per_round`` steps in each round."""

    sampling_rate: float
    steps_per_round: int


class StepPlan(msgspec.Struct, frozen=True):
    """The mechanism of one round, as charged in the ledger."""

    sampling_rate: float
    noise_multiplier: float
    clip_norm_l2: float
    steps: int


def public_count(n: int) -> int:
    """Return ``n`` rounded down to a power of √2.

    Noise and steps follow from the number of examples, and whoever sees an update's spread could work it out; so they
    follow from this coarse number instead, which counts as public.
    """
    if n < 1:
        raise ValueError(f"a device that trains has at least one example, not {n}")
    power = int(2 * math.log2(n))
    while math.floor(2 ** ((power + 1) / 2)) <= n:
        power += 1
    while math.floor(2 ** (power / 2)) > n:
        power -= 1
    return math.floor(2 ** (power / 2))


def schedule(training: TrainingSpec, n: int) -> Schedule:
    """Return the schedule for a device of ``n`` examples: rate min(1, batch / n), as many steps as make an epoch."""
    count = training.nominal_samples or public_count(n)
    steps = math.ceil(count / training.batch_size) * training.local_epochs
    return Schedule(min(1.0, training.batch_size / count), steps)


def budget_of(privacy: PrivacySpec) -> tuple[float, float]:
    """Return (ε, δ) asked for. Raises DeclinedError if the job names none."""
    if privacy.epsilon is None or privacy.delta is None:
        raise DeclinedError(Code.UNSUPPORTED, "mode 'example' needs epsilon and delta")
    return privacy.epsilon, privacy.delta


def check_delta(delta: float, n: int) -> None:
    """Raise DeclinedError unless δ ≤ 1 / (10 n). Declining tells the server that one bit about n, and no more."""
    if delta * 10 * n > 1:
        raise DeclinedError(Code.DELTA, f"δ = {delta:g} is above 1 / (10 · {n})")


def open_private_job(
    instruction: TrainInstruction, samples: SampleRange, n: int, state: LedgerState
) -> JobOpened:
    """Return the plan of a job with privacy: schedule and noise such that all its rounds stay within its ε.

    ε covers this job and every earlier one that may have touched the same samples.
    Raises DeclinedError for δ, BudgetError if earlier jobs have spent the budget.
    """
    epsilon, delta = budget_of(instruction.privacy)
    check_delta(delta, n)
    drawn = schedule(instruction.training, n)
    noise = calibrate_noise(
        epsilon,
        delta,
        drawn.sampling_rate,
        drawn.steps_per_round * instruction.rounds,
        state.committed_on(samples),
    )
    return JobOpened(
        job_id=instruction.job_id,
        request=job_digest(instruction),
        samples=samples,
        n=n,
        epsilon=epsilon,
        delta=delta,
        clip_norm_l2=instruction.privacy.clip_norm_l2,
        sampling_rate=drawn.sampling_rate,
        noise_multiplier=noise,
        steps_per_round=drawn.steps_per_round,
        rounds=instruction.rounds,
        earlier_unprotected=state.is_unprotected(samples),
    )


def steps_of(opened: JobOpened) -> StepPlan:
    """Return the mechanism of one round of an opened job."""
    return StepPlan(
        sampling_rate=opened.sampling_rate,
        noise_multiplier=opened.noise_multiplier,
        clip_norm_l2=opened.clip_norm_l2,
        steps=opened.steps_per_round,
    )


def job_digest(instruction: TrainInstruction) -> str:
    """Return a hash of what stays the same in all rounds of a job."""
    return _digest(
        instruction.job_id,
        instruction.recipe,
        instruction.recipe_hash,
        instruction.parameters,
        instruction.privacy,
        instruction.training,
        instruction.rounds,
    )


def exchange_digest(instruction: TrainInstruction) -> str:
    """Return a hash of one exchange as asked: what a stored update may answer again."""
    return _digest(
        job_digest(instruction),
        instruction.round,
        instruction.exchange,
        instruction.packing,
        instruction.n_parameters,
        instruction.model_sha256,
    )


def _digest(*values: object) -> str:
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()
