"""The anomaly autoencoder: a small dense network that learns how a machine's channels move together.

It sees one window, ``(rows, channels)``, squeezes it through a narrow layer and gives it back; what it cannot give
back is judged on the device by ``hedgerow.shared.scoring``. Dense layers and ReLU only: every exporter and every
int8 kernel has them, and nothing (no batch statistics) links one example to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from hedgerow.models.pump import CHANNELS
from hedgerow.models.pump.public import PublicMachine, mixed, public_machine
from hedgerow.models.recipe import Array, Floats, GateDefaults, Parameters, Predict, PublicSet, TrainingSet
from hedgerow.models.recipes.parameters import checked
from hedgerow.shared import limits
from hedgerow.shared.bundle import ScoringRule
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import Channel, DeviceProfile
from hedgerow.shared.scoring import RULE_NAME, RULE_VERSION, ChartOptions, Scorer
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    import torch

PUBLIC_MACHINES: Final = 8
WINDOWS_PER_MACHINE: Final = 60
CALIBRATION: Final = 64
RANGE_WINDOWS: Final = 192
GOLDEN: Final = 4
Width = Annotated[int, Meta(ge=1, le=4096)]
Positive = Annotated[float, Meta(gt=0)]


class AnomalyParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job may choose: window and layers, and the scoring options (see ``ChartOptions``).

    ``channels`` are the profile's, in its order. ``scaling`` must be ``public`` in a job with privacy.
    """

    rows: Annotated[int, Meta(ge=2, le=limits.MAX_WINDOW_ROWS)] = 16
    channels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=limits.MAX_CHANNELS)] = CHANNELS
    hidden: Width = 32
    code: Width = 8
    scaling: Literal["public", "device"] = "public"
    centring: Literal["fixed", "window"] = "fixed"
    slow: tuple[str, ...] = ("temperature", "water-temperature")
    drift_ratio: Positive | None = None
    clip: Positive = 4.0
    memory_rows: Positive = 10.0
    quantile: Annotated[float, Meta(gt=0, le=1)] = 0.99
    factor: Positive = 1.0
    follow_rows: Positive | None = None
    follow_below: Annotated[float, Meta(ge=0, le=1)] = 0.5
    leash: Positive = 3.0
    follow_gate: Literal["all", "each"] = "all"
    spread: Literal["whole", "held-out"] = "whole"
    wander_rows: Annotated[float, Meta(ge=0)] = 0.0
    dispersion: bool = False
    release: Annotated[float, Meta(gt=0, le=1)] = 1.0

    def options(self) -> ChartOptions:
        """Return the part that the scoring rule carries to the device."""
        return ChartOptions(**{name: getattr(self, name) for name in ChartOptions.__struct_fields__})


class AnomalyAutoencoder:
    """The recipe ``anomaly-autoencoder``."""

    name = "anomaly-autoencoder"
    version = "1"
    task: Literal["anomaly", "classification"] = "anomaly"
    metric = "explained"
    higher_is_better = True
    gate = GateDefaults(
        min_agreement=0.9, max_metric_drop=0.05, max_latency_us=20_000, max_artefact_bytes=2 * limits.MIB
    )

    def check(self, parameters: Parameters) -> Parameters:
        """Return the parameters with defaults filled in. Raises ConfigError naming the key."""
        plain: Parameters = msgspec.json.decode(msgspec.json.encode(self._read(parameters)))
        return plain

    def input_spec(self: Self, parameters: Parameters) -> TensorSpec:
        """Return the window that a device stores: float32 ``(rows, channels)``."""
        read = self._read(parameters)
        return TensorSpec("window", "float32", (read.rows, len(read.channels)), "window")

    def output_spec(self, parameters: Parameters) -> TensorSpec:
        """Return the reconstruction: as the input, in scaled units."""
        read = self._read(parameters)
        return TensorSpec("reconstruction", "float32", (read.rows, len(read.channels)), "window")

    def feature_set(self, parameters: Parameters) -> str:
        """Return the id of the transform: kind of scaling, slow channels and clip decide it."""
        read = self._read(parameters)
        slow = "+".join(read.slow) or "none"
        return f"{read.scaling}-{read.centring}-clip{read.clip:g}-slow:{slow}-v1"

    def build(self, parameters: Parameters) -> torch.nn.Module:
        """Return the untrained network, float32 ``(n, rows, channels)`` to the same shape."""
        from torch import nn

        read = self._read(parameters)
        size = read.rows * len(read.channels)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, read.hidden),
            nn.ReLU(),
            nn.Linear(read.hidden, read.code),
            nn.ReLU(),
            nn.Linear(read.code, read.hidden),
            nn.ReLU(),
            nn.Linear(read.hidden, size),
            nn.Unflatten(1, (read.rows, len(read.channels))),
        )

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002
        """Return the mean squared error of each window's reconstruction, ``(n,)``."""
        from torch.nn import functional

        return functional.mse_loss(module(x), x, reduction="none").mean(dim=(1, 2))

    def training_set(
        self,
        samples: Sequence[Array] | Array,
        labels: Sequence[int | None],
        profile: DeviceProfile | None,
        parameters: Parameters,
        private: bool,
    ) -> TrainingSet:
        """Return the windows as model input; those labelled other than 0 are left out.

        With ``private`` a window depends on its own readings and the profile's public constants alone. The unit of
        the guarantee is the window: where windows overlap, one row is part of length / stride of them.
        Raises ConfigError if the profile's channels are not the job's, or ``private`` goes with device scaling.
        """
        read = self._read(parameters)
        if profile is None or profile.channels != read.channels:
            have = ", ".join(profile.channels) if profile else "no profile"
            raise ConfigError(
                f"recipe {self.name}: wants channels {', '.join(read.channels)}; the device has {have}"
            )
        if private and read.scaling != "public":
            raise ConfigError(f"recipe {self.name}: scaling = {read.scaling!r} is not private; use 'public'")
        normal = [np.asarray(s) for s, label in zip(samples, labels, strict=True) if label in (None, 0)]
        if not normal:
            raise ContentError("no normal window to train on")
        windows = np.stack(normal)
        scorer = Scorer(self._rule(read), profile)
        return TrainingSet(scorer.transform_with(windows, scorer.fit_scaling(windows)), None)

    def public_set(self, parameters: Parameters) -> PublicSet:
        """Return windows of simulated pumps; ``y`` is 1 where a fault is in the window.

        Calibration adds synthetic windows that fill the whole input range, clip to clip: a real machine's shapes are
        not the simulator's, and int8 ranges taken from the simulator alone would cut them.
        """
        read = self._read(parameters)
        machines = [public_machine(n, read.rows, WINDOWS_PER_MACHINE) for n in range(PUBLIC_MACHINES)]
        parts = [_prepared(machine, read) for machine in machines]
        normal, faulty = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
        x = np.concatenate([normal, faulty, _range_windows(read)])
        y = np.repeat(np.array([0, 1, 1], np.int64), [len(normal), len(faulty), RANGE_WINDOWS])
        order = np.random.default_rng(7).permutation(len(normal))
        golden = np.concatenate([order[: GOLDEN - 1], [len(normal)]])
        ranges = np.arange(len(x) - RANGE_WINDOWS, len(x))
        calibration = np.concatenate([order[GOLDEN - 1 : GOLDEN - 1 + CALIBRATION], ranges])
        return PublicSet(x, y, calibration.astype(np.int64), golden.astype(np.int64))

    def score(self, predict: Predict, public: PublicSet, parameters: Parameters) -> dict[str, float]:  # noqa: ARG002
        """Return ``explained`` (share of normal windows' variation given back) and ``fault_auc`` (faults found)."""
        rest = np.setdiff1d(np.arange(len(public.x)), np.concatenate([public.calibration, public.golden]))
        x = public.x[rest]
        faulty = np.zeros(len(x), bool) if public.y is None else public.y[rest] == 1
        errors = ((x - predict(x)).astype(np.float64) ** 2).mean(axis=(1, 2))
        energy = (x[~faulty].astype(np.float64) ** 2).mean()
        explained = 1 - float(errors[~faulty].mean() / energy)
        return {"explained": explained, "fault_auc": area_under_curve(errors[faulty], errors[~faulty])}

    def agreement(self, reference: Floats, candidate: Floats) -> float:
        """Return 1 less the error's share of the reference's variation, at least 0."""
        error = float(((reference - candidate).astype(np.float64) ** 2).sum())
        energy = float((reference.astype(np.float64) ** 2).sum())
        if energy == 0:
            return 1.0 if error == 0 else 0.0
        return max(0.0, 1 - error / energy)

    def scoring(self, parameters: Parameters) -> ScoringRule | None:
        """Return the residual chart with this job's options."""
        return self._rule(self._read(parameters))

    def labels(self, parameters: Parameters) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: an autoencoder has no classes."""
        return ()

    def _read(self, parameters: Parameters) -> AnomalyParameters:
        read = checked(parameters, AnomalyParameters, self.name)
        stray = sorted(set(read.slow) - set(read.channels))
        if stray and "slow" in parameters:
            raise ConfigError(f"recipe {self.name}: slow channels {', '.join(stray)} are not in channels")
        return msgspec.structs.replace(read, slow=tuple(n for n in read.slow if n in read.channels))

    @staticmethod
    def _rule(read: AnomalyParameters) -> ScoringRule:
        options: dict[str, Any] = msgspec.to_builtins(read.options())
        return ScoringRule(RULE_NAME, RULE_VERSION, options)


def _prepared(machine: PublicMachine, read: AnomalyParameters) -> tuple[Floats, Floats]:
    """Return a public machine's normal and faulty windows as a device under the same rule would give them."""
    unit = tuple(Channel(name, "1", -1e9, 1e9, 0.0, 1.0) for name in read.channels)
    scorer = Scorer(AnomalyAutoencoder._rule(read), DeviceProfile("public", 1, channel=unit))
    normal, faulty = mixed(machine.normal, read.channels), mixed(machine.faulty, read.channels)
    scales = scorer.fit_scaling(normal)
    return scorer.transform_with(normal, scales), scorer.transform_with(faulty, scales)


def _range_windows(read: AnomalyParameters) -> Floats:
    """Return noise of many sizes about levels anywhere in the input range, ``(RANGE_WINDOWS, rows, channels)``."""
    rng = np.random.default_rng(11)
    channels, clip = len(read.channels), read.clip
    size = rng.uniform(0.1, 0.6, (RANGE_WINDOWS, 1, channels)) * clip
    level = rng.uniform(-clip, clip, (RANGE_WINDOWS, 1, channels))
    windows = level + size * rng.standard_normal((RANGE_WINDOWS, read.rows, channels))
    if read.centring == "window":
        windows -= windows.mean(axis=1, keepdims=True)
    return np.asarray(np.clip(windows, -clip, clip), np.float32)


def area_under_curve(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> float:
    """Return the chance that a positive scores above a negative (Mann and Whitney); 0.5 where either is empty."""
    if not len(positive) or not len(negative):
        return 0.5
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
    return float(below.mean() / 2 / len(negative))


RECIPE: Final = AnomalyAutoencoder()
