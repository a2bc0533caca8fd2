"""What a privacy ledger charges: events as data, from which ε can be computed again by anyone who has the file."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec


class DpSgdSteps(msgspec.Struct, frozen=True, tag="dp-sgd"):
    """``steps`` steps of DP-SGD (Abadi et al. 2016, Algorithm 1).

    Each step takes every example with probability ``sampling_rate`` on its own (Poisson), clips each gradient to an
    L2 norm of C and adds N(0, (``noise_multiplier`` · C)²) to their sum. Relation: add or remove one example.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"a sampling rate lies in (0, 1], not {self.sampling_rate}")
        _check_noise(self.noise_multiplier, self.steps)


class CentralRounds(msgspec.Struct, frozen=True, tag="central-rounds"):
    """``rounds`` rounds of mode ``central-poisson``: the unit is one **device** of a population, not an example.

    Each round the server takes every registered device with probability ``sampling_rate`` on its own, each device's
    update has an L2 norm of at most C, and the server adds N(0, (``noise_multiplier`` · C)²) to their sum, which it
    divides by a constant. Relation: zero-out (one device's contribution becomes the zero vector; population and
    denominator stay), whose loss is that of adding or removing one; the mathematics are DP-SGD's (McMahan et al.
    2018, Learning Differentially Private Recurrent Language Models, section 3).
    """

    sampling_rate: float
    noise_multiplier: float
    rounds: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"a sampling rate lies in (0, 1], not {self.sampling_rate}")
        _check_noise(self.noise_multiplier, self.rounds)


class GaussianRelease(msgspec.Struct, frozen=True, tag="gaussian"):
    """``count`` releases of a statistic plus N(0, (``noise_multiplier`` · Δ)²), Δ its L2 sensitivity to one example."""

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier, self.count)


class UnprotectedRelease(msgspec.Struct, frozen=True, tag="unprotected"):
    """A release without noise: ε is infinite from here on, whatever comes before or after."""

    what: str = ""


PrivacyEvent = DpSgdSteps | CentralRounds | GaussianRelease | UnprotectedRelease


def _check_noise(noise_multiplier: float, count: int) -> None:
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise ValueError(f"a noise multiplier is positive and finite, not {noise_multiplier}")
    if count < 1:
        raise ValueError(f"an event happens at least once, not {count} times")


def merged(events: Iterable[PrivacyEvent]) -> tuple[PrivacyEvent, ...]:
    """Return the same composition with equal mechanisms counted together (composition does not depend on order)."""
    steps: dict[tuple[float, float], int] = {}
    rounds: dict[tuple[float, float], int] = {}
    releases: dict[float, int] = {}
    unprotected: list[UnprotectedRelease] = []
    for event in events:
        match event:
            case DpSgdSteps(sampling_rate=rate, noise_multiplier=noise):
                steps[rate, noise] = steps.get((rate, noise), 0) + event.steps
            case CentralRounds(sampling_rate=rate, noise_multiplier=noise):
                rounds[rate, noise] = rounds.get((rate, noise), 0) + event.rounds
            case GaussianRelease(noise_multiplier=noise):
                releases[noise] = releases.get(noise, 0) + event.count
            case UnprotectedRelease():
                unprotected.append(event)
    return (
        *(DpSgdSteps(rate, noise, count) for (rate, noise), count in sorted(steps.items())),
        *(CentralRounds(rate, noise, count) for (rate, noise), count in sorted(rounds.items())),
        *(GaussianRelease(noise, count) for noise, count in sorted(releases.items())),
        *unprotected[:1],
    )
