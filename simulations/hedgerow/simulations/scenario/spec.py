"""A scenario: the job, unchanged, and the world that it is tried in.

``[job]`` is the table that ``hedgerow job submit`` takes. Everything else describes what a simulation must invent: whose
data, which devices, when they are there, what goes wrong, how the result is judged. One ``seed`` drives all of that;
``job.seed`` makes the first model and orders the batches, as on a fleet.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hedgerow.shared import limits
from hedgerow.shared.job import Job, Name

# Wider than any board or network, and so narrow that times, bytes and joules of a run stay finite.
Positive = Annotated[float, Meta(ge=1e-9, le=1e12)]
NotNegative = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
EngineName = Literal["lean", "flower", "fleet"]
SourceName = Literal[
    "digits", "pump", "synthetic-images", "synthetic-vectors", "csv", "idx", "images", "npz", "sklearn"
]
PartitionKind = Literal["iid", "dirichlet", "label", "group", "quantity", "natural"]


class PartitionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How examples are divided over the devices.

    ``iid``: equal shares at random. ``dirichlet``: each class divided by a Dirichlet(``alpha``) draw (Hsu, Qi and Brown
    2019, section 3). ``label``: ``labels_per_device`` classes on each (McMahan et al. 2017, section 3). ``group``: by the
    source's own groups, whole groups to a device (with fewer groups than devices, a group to several). ``quantity``:
    shares of sizes Dirichlet(``alpha``), same mixture.
    ``natural``: as the source gives them (one pump, one file, one folder a device). ``min_examples``: no device has fewer.
    """

    kind: PartitionKind = "iid"
    alpha: Positive = 0.5
    labels_per_device: Count = 2
    min_examples: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    max_examples: Count | None = None


class DriftSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How inputs differ: between devices from the start (``feature_*``), and over rounds (``from_round`` on).

    ``feature_scale`` and ``feature_shift`` are the spreads of a gain and an offset drawn per device and input
    element, the offset in units of each element's standard deviation. Over time, the share ``devices`` of the devices moves by
    ``shift`` standard deviations (or, with ``rotate_labels``, renames class k to k + 1), at once or over ``over_rounds``.
    """

    feature_scale: NotNegative = 0.0
    feature_shift: NotNegative = 0.0
    from_round: Annotated[int, Meta(ge=1, le=limits.MAX_ROUNDS)] | None = None
    over_rounds: Annotated[int, Meta(ge=1, le=limits.MAX_ROUNDS)] = 1
    devices: Share = 0.5
    shift: NotNegative = 0.0
    rotate_labels: bool = False


class PopulationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose data: ``devices`` of them, examples from ``source`` with its ``options``, divided by ``partition``.

    ``path`` is relative to the scenario's file. ``test_share`` of each device's examples is held out for evaluation on
    the device; it is never trained on.
    """

    devices: Annotated[int, Meta(ge=1, le=1_000_000)]
    source: SourceName = "digits"
    path: str | None = None
    options: dict[str, Any] = {}
    partition: PartitionSpec = PartitionSpec()
    drift: DriftSpec = DriftSpec()
    test_share: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    profile: str | None = None


class DeviceClassSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of board, for simulated time, bytes and energy; shares are relative to each other.

    Time to train is examples · epochs / ``examples_per_s`` (drawn per device with the relative spread ``jitter``),
    to travel bits / rate + ``latency_s``. Energy is a proxy: ``train_watts`` while training, ``radio_watts`` while sending or
    receiving. A device whose memory is below what the model takes (three copies and the optimizer's) does not take part.
    """

    name: Name
    share: Positive = 1.0
    examples_per_s: Positive = 200.0
    up_mbit_s: Positive = 10.0
    down_mbit_s: Positive = 50.0
    latency_s: NotNegative = 0.05
    memory_mib: Positive = 1024.0
    train_watts: NotNegative = 5.0
    radio_watts: NotNegative = 1.0
    jitter: NotNegative = 0.1


class AvailabilitySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When devices are there: ``always``; ``random``: each round with probability ``rate``; ``diurnal``: with a
    probability that swings between ``low`` and ``rate`` over ``period_s`` of simulated time, each device's night at its own hour.
    """

    kind: Literal["always", "random", "diurnal"] = "always"
    rate: Share = 1.0
    low: Share = 0.1
    period_s: Positive = 86_400.0


class ByzantineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices that send something else: ``share`` of them, from ``from_round`` on.

    ``sign-flip`` sends −``scale`` · update, ``scale`` sends it ``scale`` times, ``noise`` sends Gaussian noise of ``scale`` times
    its norm, ``nan`` sends what is not a number, ``label-flip`` trains honestly on class K − 1 − k.
    """

    kind: Literal["sign-flip", "scale", "noise", "nan", "label-flip"]
    share: Share = 0.2
    scale: Annotated[float, Meta(gt=0, le=1e30)] = 1.0
    from_round: Annotated[int, Meta(ge=1, le=limits.MAX_ROUNDS)] = 1


class FaultsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong. ``dropout``: a drawn device never answers, per round. ``straggler_share`` of the devices take
    ``straggler_factor`` times as long. The rest is for ``--engine fleet``, where processes and sockets are real: churn
    (``leave`` and come back), ``kill`` (power cut, SIGKILL) and ``server_kill`` per round, packet ``loss`` and ``delay_ms``,
    ``clock_skew_s``.
    """

    dropout: Share = 0.0
    straggler_share: Share = 0.0
    straggler_factor: Annotated[float, Meta(ge=1, le=10_000)] = 10.0
    byzantine: ByzantineSpec | None = None
    leave: Share = 0.0
    kill: Share = 0.0
    server_kill: Share = 0.0
    loss: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    delay_ms: Annotated[float, Meta(ge=0, le=60_000)] = 0.0
    clock_skew_s: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0


class EvaluationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is judged, every ``every`` rounds and after the last: on the held-out public set (``central``), on
    each device's own held-out examples (``per_device``), and by cohort: ``group`` or ``device-class``.

    Evaluation looks at simulated data and leaves nothing on any device: it lies outside ε, and the report says so.
    """

    every: Annotated[int, Meta(ge=1, le=limits.MAX_ROUNDS)] = 1
    central: bool = True
    per_device: bool = False
    cohorts: Literal["none", "group", "device-class"] = "none"


class SweepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Successive halving (Jamieson and Talwalkar 2016): each trial takes one value of each field, the best share
    1 / ``keep_one_of`` of a rung goes on with so many times the rounds, from ``first_rounds``.

    ``fields`` maps a dotted path in the scenario (``job.training.learning_rate``) to its values. ``trials`` bounds how many
    combinations are tried, drawn by the scenario's seed. With privacy, every trial is charged: the report composes all.
    """

    fields: dict[str, list[Any]]
    trials: Annotated[int, Meta(ge=2, le=10_000)] = 16
    first_rounds: Annotated[int, Meta(ge=1, le=limits.MAX_ROUNDS)] = 3
    keep_one_of: Annotated[int, Meta(ge=2, le=10)] = 3


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One simulation, as an engineer writes it in TOML (``hedgerow simulate FILE``)."""

    name: Name
    job: Job
    population: PopulationSpec
    description: str = ""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    engine: EngineName = "lean"
    device_class: tuple[DeviceClassSpec, ...] = (DeviceClassSpec("device"),)
    availability: AvailabilitySpec = AvailabilitySpec()
    faults: FaultsSpec = FaultsSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    sweep: SweepSpec | None = None
