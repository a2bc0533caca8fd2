"""ε of composed events and the noise that a budget needs, by dp-accounting.

Relations: ``add-remove`` of one unit (of an example, or zero-out of a device: the same loss), and ``replace`` of one by any
other. ``pld`` (privacy loss distributions, Koskela et al. 2020, Doroshenko et al. 2022) is the claim; ``rdp`` (Mironov
2017, with the conversion of Canonne, Kamath and Steinke 2020) is looser and serves as a check. Both are upper bounds.
dp-accounting is loaded on first use.

Under ``replace`` a clipped sum moves by up to 2C. dp-accounting 0.6 reads a noise multiplier as σ / C in its PLD
accountant, which adds the factor itself, and as σ / (2C) in its RDP accountant, which does not
(google/differential-privacy#378): events here mean σ / C, and the one place that talks to dp-accounting halves it for RDP.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from hedgerow.shared.errors import BudgetError, UnsupportedError
from hedgerow.shared.privacy.events import (
    CentralRounds,
    DpSgdSteps,
    GaussianRelease,
    PrivacyEvent,
    UnprotectedRelease,
    merged,
)

Accountant = Literal["pld", "rdp"]
Relation = Literal["add-remove", "replace"]
REPORT_INTERVAL = 1e-4
CALIBRATION_INTERVAL = 1e-3
"""Widths of the privacy loss grid. Rounding is towards a larger ε, so the coarser grid calibrates on the safe side."""

MAX_NOISE_MULTIPLIER = 1e4
MIN_NOISE_MULTIPLIER = 0.05
LEAST_SHARE = 0.05
"""Less of a budget than this is as good as nothing: the noise would drown what is learned."""

_STEP = 1.5
_CLOSE = 0.999
_NARROW = 1 + 1e-4


def epsilon(
    events: Sequence[PrivacyEvent],
    delta: float,
    accountant: Accountant = "pld",
    relation: Relation = "add-remove",
    *,
    coarse: bool = False,
) -> float:
    """Return an upper bound of ε at ``delta`` of all ``events`` composed; 0 for none, infinity if one is unprotected.

    ``coarse`` takes the grid of the calibration: ten times as fast, for curves; larger in the fourth digit, never smaller.
    Raises ValueError if ``delta`` is not in (0, 1), UnsupportedError if dp-accounting is not installed or cannot tell
    (RDP under ``replace`` of anything that was sampled).
    """
    interval = CALIBRATION_INTERVAL if coarse else REPORT_INTERVAL
    return _epsilon(merged(events), delta, accountant, interval, relation)


def calibrate_noise(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    spent: Sequence[PrivacyEvent] = (),
) -> float:
    """Return the least noise multiplier for which ``spent`` and ``steps`` more steps cost at most ε, by PLD.

    A step is one of DP-SGD, or one central round: the mathematics are the same. It is never below that; above it by so little that ε is within 0.1 % of the target (or the multiplier within 1e-4).
    ``epsilon`` recomputes at most the target, its grid being finer than the one used here.
    Raises BudgetError if ``spent`` leaves less than ``LEAST_SHARE`` of the budget, ValueError for a target that is not positive.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise ValueError(f"a target ε is positive and finite, not {target_epsilon}")
    before = merged(spent)
    already = _epsilon(before, delta, "pld", CALIBRATION_INTERVAL)
    if already > (1 - LEAST_SHARE) * target_epsilon:
        raise BudgetError(
            f"the budget of ε = {target_epsilon:g} is spent: earlier releases of the same data cost {already:.3g}"
        )

    def cost(noise: float) -> float:
        events = merged((*before, DpSgdSteps(sampling_rate, noise, steps)))
        return _epsilon(events, delta, "pld", CALIBRATION_INTERVAL)

    guess = sampling_rate * math.sqrt(2 * steps * math.log(1.25 / delta)) / (target_epsilon - already)
    return _least_noise(cost, target_epsilon, min(max(guess, 0.6), MAX_NOISE_MULTIPLIER))


def _least_noise(cost: Callable[[float], float], target: float, guess: float) -> float:
    """Return the least noise whose decreasing ``cost`` is at most ``target``, approached from above."""
    low, high = _bracket(cost, target, guess)
    while high[1] < _CLOSE * target and high[0] > _NARROW * low[0]:
        middle = _between(low, high, target)
        found = (middle, cost(middle))
        if found[1] <= target:
            high = found
        else:
            low = found
    return high[0]


def _bracket(
    cost: Callable[[float], float], target: float, guess: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (noise, cost) too low and (noise, cost) high enough, walking from ``guess``."""
    here = (guess, cost(guess))
    while True:
        enough = here[1] <= target
        if (enough and here[0] <= MIN_NOISE_MULTIPLIER) or (not enough and here[0] >= MAX_NOISE_MULTIPLIER):
            break
        step = here[0] / _STEP if enough else here[0] * _STEP
        noise = min(max(step, MIN_NOISE_MULTIPLIER), MAX_NOISE_MULTIPLIER)
        there = (noise, cost(noise))
        if (there[1] <= target) != enough:
            return (there, here) if enough else (here, there)
        here = there
    if here[1] <= target:
        return here, here
    raise BudgetError(f"no noise up to {MAX_NOISE_MULTIPLIER:g} keeps these steps within ε = {target:g}")


def _between(low: tuple[float, float], high: tuple[float, float], target: float) -> float:
    """Return where the line through both points, in logarithms, meets a cost just below the target.

    ε is nearly a power of the noise, so that this takes a few tries where halving takes a dozen. The share is kept
    away from the ends, so that both move.
    """
    if not math.isfinite(low[1]) or high[1] <= 0:
        return math.sqrt(low[0] * high[0])
    share = math.log(low[1] / (target * (1 + _CLOSE) / 2)) / math.log(low[1] / high[1])
    return float(low[0] * (high[0] / low[0]) ** min(max(share, 0.02), 0.98))


@functools.lru_cache(maxsize=1024)
def _epsilon(
    events: tuple[PrivacyEvent, ...],
    delta: float,
    accountant: Accountant,
    interval: float,
    relation: Relation = "add-remove",
) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"δ lies in (0, 1), not {delta}")
    if any(isinstance(event, UnprotectedRelease) for event in events):
        return math.inf
    if not events:
        return 0.0
    found = _accountant(accountant, interval, relation)
    for event in events:
        found.compose(_as_dp_event(event, halved=accountant == "rdp" and relation == "replace"))
    return float(found.get_epsilon(delta))


def _accountant(kind: Accountant, interval: float, relation: Relation) -> Any:
    _load()
    from dp_accounting import NeighboringRelation, pld, rdp

    neighbours = (
        NeighboringRelation.REPLACE_ONE if relation == "replace" else NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    if kind == "rdp":
        return rdp.RdpAccountant(neighboring_relation=neighbours)
    return pld.PLDAccountant(neighbours, value_discretization_interval=interval)


def _as_dp_event(event: PrivacyEvent, *, halved: bool) -> Any:
    import dp_accounting

    match event:
        case DpSgdSteps(sampling_rate=rate, noise_multiplier=noise, steps=count):
            sampled = True
        case CentralRounds(sampling_rate=rate, noise_multiplier=noise, rounds=count):
            sampled = True
        case GaussianRelease(noise_multiplier=noise, count=count):
            rate, sampled = 1.0, False
        case _:
            raise UnsupportedError(f"no accounting for {type(event).__name__}")
    one = dp_accounting.GaussianDpEvent(noise / 2 if halved else noise)
    if halved and rate < 1:
        raise UnsupportedError("RDP knows no bound for sampling under replace; ask for PLD")
    if sampled and not halved:
        one = dp_accounting.PoissonSampledDpEvent(rate, one)
    return dp_accounting.SelfComposedDpEvent(one, count)


def _load() -> None:
    """Import dp-accounting. Its notes on orders that did not converge are harmless (those orders are skipped)."""
    try:
        import dp_accounting  # noqa: F401
        from absl import logging as absl_logging
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"privacy accounting needs {error.name}; install 'hedgerow[train]' or 'hedgerow[server]'"
        ) from error
    absl_logging.set_verbosity(absl_logging.ERROR)
