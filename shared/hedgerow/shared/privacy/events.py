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


class GaussianRelease(msgspec.Struct, frozen=True, tag="gaussian"):
    """``count`` releases of a statistic plus N(0, (``noise_multiplier`` · Δ)²), Δ its L2 sensitivity to one example."""

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        _check_noise(self.noise_multiplier, self.count)


class UnprotectedRelease(msgspec.Struct, frozen=True, tag="unprotected"):
    """A release without noise: ε is infinite from here on, whatever comes before or after."""

    what: str = ""


PrivacyEvent = DpSgdSteps | GaussianRelease | UnprotectedRelease


def _check_noise(noise_multiplier: float, count: int) -> None:
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise ValueError(f"a noise multiplier is positive and finite, not {noise_multiplier}")
    if count < 1:
        raise ValueError(f"an event happens at least once, not {count} times")


def merged(events: Iterable[PrivacyEvent]) -> tuple[PrivacyEvent, ...]:
    """Return the same composition with equal mechanisms counted together (composition does not depend on order)."""
    steps: dict[tuple[float, float], int] = {}
    releases: dict[float, int] = {}
    unprotected: list[UnprotectedRelease] = []
    for event in events:
        if isinstance(event, DpSgdSteps):
            key = (event.sampling_rate, event.noise_multiplier)
            steps[key] = steps.get(key, 0) + event.steps
        elif isinstance(event, GaussianRelease):
            releases[event.noise_multiplier] = releases.get(event.noise_multiplier, 0) + event.count
        else:
            unprotected.append(event)
    return (
        *(DpSgdSteps(rate, noise, count) for (rate, noise), count in sorted(steps.items())),
        *(GaussianRelease(noise, count) for noise, count in sorted(releases.items())),
        *unprotected[:1],
    )
