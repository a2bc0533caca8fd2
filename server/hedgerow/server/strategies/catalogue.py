"""Which strategies a job may name, with which options, and how a name becomes an aggregator.

Names are an allow-list, never an import path: a job is data, and data must not choose what code runs. Each Flower
strategy here is driven by a contract test.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from hedgerow.server.aggregation.aggregator import Aggregator
from hedgerow.server.aggregation.algorithm import algorithm_for
from hedgerow.server.aggregation.central import CentralAggregator, FixedGaussian
from hedgerow.server.aggregation.streaming import StreamingAggregator
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import CENTRAL_MODES, Job, StrategySpec
from hedgerow.shared.privacy.central import CentralPlan
from hedgerow.shared.privacy.noise import SystemRandom

NORM_OPTION: Final = "max_update_norm_l2"
PREFIX: Final = "flower:"


class Option(NamedTuple):
    """The range of one option, both ends allowed; ``whole`` for counts."""

    low: float
    high: float
    whole: bool = False


_RATE: Final = Option(1e-9, 1e3)
_BETA: Final = Option(0.0, 0.999999)
_COUNT: Final = Option(0, 10_000, whole=True)
_ADAPTIVE: Final = {"eta": _RATE, "tau": Option(1e-12, 1e3)}

_MOMENTS: Final = {"beta_1": _BETA, "beta_2": _BETA, "tau": Option(1e-12, 1e3)}
OWN: Final[dict[str, dict[str, Option]]] = {
    "fedavg": {},
    "fedprox": {},
    "fedavgm": {"server_momentum": _BETA},
    "fedadam": _MOMENTS,
    "fedyogi": _MOMENTS,
}
"""Our own strategies, which may be named with privacy too: what they do to a private mean is post-processing."""

FLOWER: Final[dict[str, dict[str, Option]]] = {
    "FedAvgM": {"server_learning_rate": _RATE, "server_momentum": _BETA},
    "FedAdam": {**_ADAPTIVE, "beta_1": _BETA, "beta_2": _BETA},
    "FedAdagrad": _ADAPTIVE,
    "FedYogi": {**_ADAPTIVE, "beta_1": _BETA, "beta_2": _BETA},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": Option(0.0, 0.499999)},
    "Krum": {"num_malicious_nodes": _COUNT},
    "MultiKrum": {"num_malicious_nodes": _COUNT, "num_nodes_to_select": Option(1, 10_000, whole=True)},
    "Bulyan": {"num_malicious_nodes": _COUNT},
    "QFedAvg": {"q": Option(0.0, 100.0), "client_learning_rate": _RATE},
}
"""Flower's strategies that may be named, with the options that a job may set."""

_UNIFORM_ONLY: Final = frozenset({"FedMedian", "FedTrimmedAvg", "Bulyan", "QFedAvg"})


def check_strategy(job: Job, where: str) -> None:
    """Raise ConfigError, naming key and what is expected, for a strategy that this job may not have."""
    spec = job.strategy
    if spec.name.startswith(PREFIX):
        _check_flower(job, where)
        return
    if spec.name not in OWN:
        raise ConfigError(
            f"{where}: strategy.name: expected {', '.join(OWN)} or {PREFIX}NAME with NAME of "
            f"{', '.join(sorted(FLOWER))}; got {spec.name!r}"
        )
    # A central mechanism has its own bound, to which the noise is sized: a second one would only lose updates.
    bound = {} if job.privacy.mode in CENTRAL_MODES else {NORM_OPTION: Option(1e-12, 1e18)}
    _check_options(spec, OWN[spec.name] | bound, where)
    if spec.name == "fedavg" and job.training.proximal_mu:
        raise ConfigError(
            f"{where}: training.proximal_mu: expected 0 with strategy 'fedavg'; the proximal term is 'fedprox'"
        )
    if spec.name == "fedprox" and not job.training.proximal_mu:
        raise ConfigError(f"{where}: training.proximal_mu: expected a number above 0 with strategy 'fedprox'")


def make_aggregator(job: Job, n_parameters: int, plan: CentralPlan | None = None) -> Aggregator:
    """Return the aggregator of a checked job; ``plan`` is for the central modes, and needed there.

    Raises ValueError without it: no job may fall back to a mean without noise.
    """
    spec = job.strategy
    if (job.privacy.mode in CENTRAL_MODES) != (plan is not None):
        raise ValueError(f"mode {job.privacy.mode!r} and its plan do not belong together")
    if plan is not None:
        mechanism = FixedGaussian(plan, SystemRandom())
        return CentralAggregator(algorithm_for(spec), mechanism, n_parameters, job.packing)
    if spec.name in OWN:
        return StreamingAggregator(
            algorithm_for(spec), n_parameters, job.packing, spec.options.get(NORM_OPTION)
        )
    # Flower is slow to import and most jobs do not need its strategies.
    from hedgerow.server.strategies.flower_strategy import FlowerAggregator

    return FlowerAggregator(spec.name.removeprefix(PREFIX), spec.options, n_parameters, job.packing)


def fewest_updates(name: str, malicious: int) -> int:
    """Return how many updates a Flower strategy needs to be what it says.

    Krum needs 2f + 3 (Blanchard et al. 2017, proposition 4.2), Bulyan 4f + 3 (El Mhamdi et al. 2018, section 4).
    """
    if name in ("Krum", "MultiKrum"):
        return 2 * malicious + 3
    return 4 * malicious + 3 if name == "Bulyan" else 1


def _check_flower(job: Job, where: str) -> None:
    spec = job.strategy
    name = spec.name.removeprefix(PREFIX)
    if name not in FLOWER:
        raise ConfigError(
            f"{where}: strategy.name: expected {PREFIX}NAME with NAME of {', '.join(sorted(FLOWER))}; got {spec.name!r}"
        )
    if job.privacy.mode != "none":
        raise ConfigError(
            f"{where}: strategy.name: {spec.name!r} runs in jobs with privacy.mode = 'none' only: no accounting of "
            f"ours covers it; expected {' or '.join(OWN)} with mode {job.privacy.mode!r}"
        )
    if spec.server_learning_rate != 1.0:
        raise ConfigError(
            f"{where}: strategy.server_learning_rate: is for {' and '.join(OWN)}; set the strategy's own option in "
            "strategy.options"
        )
    if name in _UNIFORM_ONLY and spec.weighting != "uniform":
        raise ConfigError(
            f"{where}: strategy.weighting: expected 'uniform', {spec.name!r} does not weigh updates"
        )
    _check_options(spec, FLOWER[name], where)
    if name == "QFedAvg" and "client_learning_rate" not in spec.options:
        raise ConfigError(
            f"{where}: strategy.options.client_learning_rate: expected a number, {spec.name!r} needs it"
        )
    needed = fewest_updates(name, int(spec.options.get("num_malicious_nodes", 0)))
    if job.cohort.quorum < needed:
        raise ConfigError(
            f"{where}: cohort.quorum: expected at least {needed}, so many updates {spec.name!r} needs; "
            f"got {job.cohort.quorum}"
        )


def _check_options(spec: StrategySpec, known: dict[str, Option], where: str) -> None:
    for key, value in spec.options.items():
        if key not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"{where}: strategy.options.{key}: unknown for {spec.name!r}; options are {names}"
            )
        option = known[key]
        fits = math.isfinite(value) and option.low <= value <= option.high
        if not fits or (option.whole and value != int(value)):
            kind = "a whole number" if option.whole else "a number"
            raise ConfigError(
                f"{where}: strategy.options.{key}: expected {kind} from {option.low:g} to {option.high:g}, got {value!r}"
            )
