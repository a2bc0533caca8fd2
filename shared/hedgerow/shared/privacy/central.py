"""The central mechanism with Poisson sampling and fixed clipping, as pure functions: simulator and server run these.

Each round a coin per *registered* device decides who takes part (rate q); a device's update has an L2 norm of at most C
and weight 1; N(0, (z·C)²) is added to each coordinate of the **sum**, which is divided by the constant q·N. Whoever is
offline, late, failed or rejected adds the zero vector, so that the sum's sensitivity to one device under zero-out is C
whatever happens, and the number of replies appears nowhere (McMahan et al. 2018, section 3, with the fixed-denominator
estimator f_f). The rates and the noise are public; who was drawn is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from hedgerow.shared.errors import BudgetError, ConfigError, ContentError
from hedgerow.shared.job import CohortSpec, PrivacySpec
from hedgerow.shared.packing import Vector
from hedgerow.shared.privacy.accounting import Relation, calibrate_noise, epsilon
from hedgerow.shared.privacy.events import CentralRounds, PrivacyEvent
from hedgerow.shared.privacy.noise import BLOCK, Doubles, RandomStream

MAX_EPSILON = 100.0
"""A guarantee weaker than this is none; who wants it says mode ``none``."""


class CentralPlan(msgspec.Struct, frozen=True):
    """What all rounds of a job will do and cost; fixed before the first one, and public.

    ``sampling_rate`` q, ``population`` N registered devices, ``noise_multiplier`` z = σ of the sum / ``clip_norm_l2``,
    ``rounds`` T. ``epsilon`` is by PLD at ``delta`` under zero-out, of all T rounds and what was spent before.
    """

    sampling_rate: float
    population: int
    noise_multiplier: float
    clip_norm_l2: float
    rounds: int
    delta: float
    epsilon: float

    @property
    def denominator(self) -> float:
        """What the noisy sum is divided by, q·N: a constant of the job."""
        return self.sampling_rate * self.population

    def events(self, rounds: int | None = None) -> tuple[PrivacyEvent, ...]:
        """Return what ``rounds`` rounds are charged: all that are planned if None, nothing for 0."""
        count = self.rounds if rounds is None else rounds
        return (CentralRounds(self.sampling_rate, self.noise_multiplier, count),) if count else ()

    def epsilon_after(
        self, rounds: int, spent: Sequence[PrivacyEvent] = (), relation: Relation = "add-remove"
    ) -> float:
        """Return ε by PLD at ``delta`` after ``rounds`` rounds and ``spent``; it grows with ``rounds``.

        By the grid that noise is calibrated with, so that the last round of a job costs what its plan says.
        """
        return epsilon((*spent, *self.events(rounds)), self.delta, "pld", relation, coarse=True)


def plan_central(
    privacy: PrivacySpec, cohort: CohortSpec, population: int, rounds: int, spent: Sequence[PrivacyEvent] = ()
) -> CentralPlan:
    """Return the plan of a job over ``population`` devices whose earlier releases are ``spent``.

    The noise is the least that keeps all rounds and ``spent`` within ``privacy.epsilon``; or it is
    ``privacy.noise_multiplier``, and ε follows.
    Raises ConfigError (naming the key) for a block that is not of this mode, BudgetError if ``spent`` leaves too little
    or ε exceeds ``MAX_EPSILON``, ValueError for a population or rounds below 1.
    """
    if population < 1 or rounds < 1:
        raise ValueError(f"a plan needs devices and rounds, not {population} and {rounds}")
    check_central(privacy, cohort)
    rate, delta = cohort.rate or 1.0, privacy.delta or 0.0
    noise = privacy.noise_multiplier or calibrate_noise(privacy.epsilon or 0.0, delta, rate, rounds, spent)
    plan = CentralPlan(rate, population, noise, privacy.clip_norm_l2, rounds, delta, math.inf)
    plan = msgspec.structs.replace(plan, epsilon=plan.epsilon_after(rounds, spent))
    if not plan.epsilon <= MAX_EPSILON:
        raise BudgetError(
            f"{rounds} rounds at noise multiplier {noise:g} and rate {rate:g} cost ε = {plan.epsilon:.4g}, which protects "
            f"nobody; expected at most {MAX_EPSILON:g}: raise privacy.noise_multiplier, or say mode 'none'"
        )
    return plan


def check_central(privacy: PrivacySpec, cohort: CohortSpec, where: str = "job") -> None:
    """Raise ConfigError, naming ``where`` and the key, unless both blocks together ask for ``central-poisson``."""
    if privacy.mode != "central-poisson":
        raise ConfigError(f"{where}: privacy.mode: expected 'central-poisson', got {privacy.mode!r}")
    if privacy.delta is None:
        raise ConfigError(f"{where}: privacy.delta: expected a number, mode 'central-poisson' needs one")
    if (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        raise ConfigError(
            f"{where}: privacy.epsilon: mode 'central-poisson' needs either epsilon (the noise follows) or "
            "noise_multiplier (epsilon follows); give one of them"
        )
    if cohort.rule != "poisson" or cohort.rate is None:
        raise ConfigError(
            f"{where}: cohort.rule: expected 'poisson' with cohort.rate, got {cohort.rule!r}: only a coin per registered "
            "device is what mode 'central-poisson' accounts for"
        )


def norm_l2(vector: Vector) -> float:
    """Return the L2 norm of a float32 vector, reckoned in float64; NaN or infinite where a value is."""
    square = 0.0
    for at in range(0, vector.size, BLOCK):
        block = vector[at : at + BLOCK].astype(np.float64)
        square += float(np.dot(block, block))
    return math.sqrt(square) if square >= 0 else math.nan


def clip_to(vector: Vector, clip_norm_l2: float) -> Vector:
    """Return ``vector`` (float32, ``(n,)``) scaled to an L2 norm of at most ``clip_norm_l2``, as a new vector.

    The norm is reckoned in float64, of the float32 values returned: rounding never lifts it above the bound. A vector
    within the bound is returned unchanged, zeros too. Raises ContentError for a value that is not finite, ValueError for
    another dtype or shape, or a bound that is not positive and finite.
    """
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise ValueError(f"expected a float32 vector, got {vector.dtype} {vector.shape}")
    if not (math.isfinite(clip_norm_l2) and clip_norm_l2 > 0):
        raise ValueError(f"a clip norm is positive and finite, not {clip_norm_l2}")
    norm = norm_l2(vector)
    if not math.isfinite(norm):
        raise ContentError("an update holds a value that is not finite")
    if norm <= clip_norm_l2:
        return vector.copy()
    shrink = 0.0
    while True:
        clipped = np.multiply(vector, clip_norm_l2 / norm * (1 - shrink), dtype=np.float64).astype(np.float32)
        if norm_l2(clipped) <= clip_norm_l2:
            return clipped
        shrink = min(1.0, 2 * shrink + 2.0**-24)


def add_central_noise(
    total: Doubles,
    noise_multiplier: float,
    clip_norm_l2: float,
    stream: RandomStream,
    out: Doubles | None = None,
) -> Doubles:
    """Return ``total`` (float64, ``(n,)``, the sum of clipped updates) plus N(0, (z·C)²) on each coordinate.

    ``out`` may be ``total`` itself: then one block of scratch is all it takes. Noise is added to any sum, that of nobody
    too. Raises ValueError for another dtype or shape, or noise that is not positive and finite.
    """
    if total.dtype != np.float64 or total.ndim != 1:
        raise ValueError(f"expected a float64 sum, got {total.dtype} {total.shape}")
    sigma = noise_multiplier * clip_norm_l2
    if not (math.isfinite(sigma) and noise_multiplier > 0 and clip_norm_l2 > 0):
        raise ValueError(f"noise is positive and finite, not {noise_multiplier} · {clip_norm_l2}")
    noisy = np.empty_like(total) if out is None else out
    for at in range(0, total.size, BLOCK):
        block = total[at : at + BLOCK]
        np.add(block, stream.gaussian(block.size, sigma), out=noisy[at : at + BLOCK])
    return noisy
