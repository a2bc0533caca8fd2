"""Strategies that only a simulation has, with their options; all others are the server's."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job, Mode


class Option(NamedTuple):
    """The range of an option, both ends allowed; ``whole`` for counts."""

    low: float
    high: float
    whole: bool = False


class Simulated(NamedTuple):
    """What a strategy takes: its options, and the privacy modes whose claim its releases would not break."""

    options: dict[str, Option]
    modes: frozenset[Mode]


SIMULATED_ONLY: Final[dict[str, Simulated]] = {
    # Control variates are a second release about the same examples, which nothing clips, noises or charges.
    "scaffold": Simulated({}, frozenset({"none"})),
    # Whoever is fast comes more often: no Poisson sample, so no central claim.
    "fedbuff": Simulated(
        {
            "buffer_size": Option(1, 10_000, whole=True),
            "concurrency": Option(1, 10_000, whole=True),
            "staleness_exponent": Option(0.0, 10.0),
        },
        frozenset({"none", "example"}),
    ),
    "fedper": Simulated({"personal_tensors": Option(1, 1000, whole=True)}, frozenset({"none", "example"})),
}


def check_simulated(job: Job, where: str) -> None:
    """Raise ConfigError, naming key and what is expected, for a simulation-only strategy that this job may not have."""
    spec, known = job.strategy, SIMULATED_ONLY[job.strategy.name]
    if job.privacy.mode not in known.modes:
        raise ConfigError(
            f"{where}: job.strategy.name: {spec.name!r} has no claim to make with job.privacy.mode = {job.privacy.mode!r}; "
            f"expected mode {' or '.join(map(repr, sorted(known.modes)))}"
        )
    for key, value in spec.options.items():
        option = known.options.get(key)
        if option is None:
            names = ", ".join(sorted(known.options)) or "none"
            raise ConfigError(
                f"{where}: job.strategy.options.{key}: unknown for {spec.name!r}; options are {names}"
            )
        fits = math.isfinite(value) and option.low <= value <= option.high
        if not fits or (option.whole and value != int(value)):
            kind = "a whole number" if option.whole else "a number"
            raise ConfigError(
                f"{where}: job.strategy.options.{key}: expected {kind} from {option.low:g} to {option.high:g}, got {value!r}"
            )
    training = job.training
    if spec.name == "scaffold" and (training.optimizer != "sgd" or training.momentum):
        raise ConfigError(
            f"{where}: job.training.optimizer: expected 'sgd' without momentum with strategy 'scaffold': its control "
            "variates are mean gradients, (x − y) / (steps · rate)"
        )
