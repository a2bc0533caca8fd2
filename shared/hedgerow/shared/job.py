"""What a job asks for: the TOML that an engineer submits, as values.

A job names a recipe (installed code, never shipped code), a mandatory privacy block, who takes part, how long and how
the result is judged. Everything that a device needs of it travels in an ``Instruction``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hedgerow.shared import limits

# \Z: in Python, $ also matches before a last line feed, and a name with one would reach topics and files
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Mode = Literal["none", "example", "central-poisson", "central-bandmf", "distributed", "local"]
Packing = Literal["float32", "float16", "int8"]
Positive = Annotated[float, Meta(gt=0)]

BUILT_MODES: frozenset[str] = frozenset({"none", "example", "central-poisson"})
CENTRAL_MODES: frozenset[str] = frozenset({"central-poisson", "central-bandmf"})
"""Modes in which the server adds the noise: device-level, for model consumers, not against the server."""


# Defaults are not sent: a device whose release does not know a newer key still reads jobs that do not use it.
class PrivacySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The guarantee asked for; mandatory, so that nobody trains without having chosen.

    ``example``: per-example (ε, δ) of each device's own samples under add-or-remove-one, by DP-SGD on the device.
    ``delta`` must be at most 1 / (10 n) for a device of n samples; a device where it is not declines the job.

    ``central-poisson``: device-level (ε, δ) for whoever sees the models, under zero-out. Each device's update is
    clipped to an L2 norm of ``clip_norm_l2``; the server adds noise to their sum. Either ``epsilon`` is given and the
    noise follows, or ``noise_multiplier`` (σ of the sum over ``clip_norm_l2``) and ε follows.
    """

    mode: Mode
    epsilon: Annotated[float, Meta(gt=0, le=100)] | None = None
    delta: Annotated[float, Meta(gt=0, lt=0.1)] | None = None
    clip_norm_l2: Positive = 1.0
    noise_multiplier: Annotated[float, Meta(ge=0.05, le=1e4)] | None = None


class CohortSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is drawn each round: ``all`` registered devices of the population, ``size`` of them by a CSPRNG (``fixed``), or
    each on its own with probability ``rate`` by a CSPRNG (``poisson``, for ``central-poisson`` alone).

    ``quorum`` is the fewest replies a round without privacy may release; with privacy it only raises an alert.
    """

    rule: Literal["all", "fixed", "poisson"] = "all"
    size: Annotated[int, Meta(ge=1, le=limits.MAX_DEVICES_PER_COHORT)] | None = None
    rate: Annotated[float, Meta(gt=0, le=1)] | None = None
    quorum: Annotated[int, Meta(ge=1, le=limits.MAX_DEVICES_PER_COHORT)] = 1


class PopulationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which registered devices may take part: all whose profile or group matches; empty means no filter."""

    groups: tuple[Name, ...] = ()
    devices: tuple[Name, ...] = ()
    profile: str | None = None


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Local training on the device. ``proximal_mu`` > 0 is FedProx (Li et al. 2020, section 3).

    ``nominal_samples`` fixes, in jobs with privacy, sampling rate and steps for all devices alike, as if each had so
    many examples; without it they follow from the device's own number, rounded down to a power of √2.
    """

    local_epochs: Annotated[int, Meta(ge=1, le=1000)] = 1
    batch_size: Annotated[int, Meta(ge=1, le=65536)] = 32
    learning_rate: Positive = 0.01
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    proximal_mu: Annotated[float, Meta(ge=0)] = 0.0
    max_samples: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    nominal_samples: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None


class StrategySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How updates become the next model: ``fedavg``, ``fedprox``, ``fedavgm``, ``fedadam`` and ``fedyogi`` of our own, or
    ``flower:NAME`` without privacy.
    """

    name: str = "fedavg"
    weighting: Literal["uniform", "samples"] = "uniform"
    server_learning_rate: Positive = 1.0
    options: dict[str, float] = {}


class DeadlineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a round waits for replies."""

    round_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0


class GateSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a candidate must reach before it is registered. Unset limits take the recipe's defaults."""

    min_agreement: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_metric_drop: Annotated[float, Meta(ge=0)] | None = None
    max_latency_us: Positive | None = None
    max_artefact_bytes: Annotated[int, Meta(ge=1)] | None = None


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One federated training, as an engineer writes it in TOML (``hedgerow job submit FILE``)."""

    name: Name
    recipe: Name
    privacy: PrivacySpec
    rounds: Annotated[int, Meta(ge=1, le=limits.MAX_ROUNDS)] = 10
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    parameters: dict[str, Any] = {}
    population: PopulationSpec = PopulationSpec()
    cohort: CohortSpec = CohortSpec()
    training: TrainingSpec = TrainingSpec()
    strategy: StrategySpec = StrategySpec()
    packing: Packing = "float32"
    deadlines: DeadlineSpec = DeadlineSpec()
    gate: GateSpec = GateSpec()
    rollout: Literal["auto", "manual"] = "auto"
    wire: Literal["packed", "flower"] = "packed"


class TrainInstruction(msgspec.Struct, frozen=True, tag="train"):
    """One exchange of one round, as a device receives it; keyed by (job, round, exchange, device).

    The model is ``n_parameters`` float32 values, little endian, in the recipe's order; it comes inline
    (``model`` not empty) when small, or by its SHA-256 from the content-addressed store.
    """

    job_id: str
    round: int
    exchange: int
    recipe: str
    recipe_hash: str
    parameters: dict[str, Any]
    privacy: PrivacySpec
    training: TrainingSpec
    packing: Packing
    rounds: int
    n_parameters: int
    model_sha256: str
    deadline_s: float
    model: bytes = b""


class TrainReply(msgspec.Struct, frozen=True, tag="trained"):
    """A device's answer to a ``TrainInstruction``; the packed delta travels beside it.

    With privacy, ``n_samples`` and ``metrics`` are withheld (None and empty): they would be releases.
    ``error`` is a short reason when the device trained nothing; ``ledger_head`` commits to its ledger
    file and ``ledger_length`` says how many entries that has, so that a server notices one that went back. ``epsilon``
    is what its samples have spent by then, at ``delta``: earlier jobs' plans included, at most the ε asked for, never falling.
    """

    job_id: str
    round: int
    exchange: int
    n_parameters: int
    packing: Packing
    update_bytes: int
    update_sha256: str
    n_samples: int | None = None
    metrics: dict[str, float] = {}
    error: str | None = None
    ledger_head: str | None = None
    ledger_length: int | None = None
    epsilon: float | None = None
    delta: float | None = None
